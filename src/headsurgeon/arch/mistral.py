"""Mistral: Llama's form without biases, one sliding window for all layers (or none)."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import same_window, separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Mistral model."""
    return separate(config, bias=False, windows=same_window(config))
