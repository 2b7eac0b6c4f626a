"""Mixtral: Mistral's attention with a mixture of experts as MLP."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import same_window, separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Mixtral model."""
    return separate(config, bias=False, mlp=None, windows=same_window(config))
