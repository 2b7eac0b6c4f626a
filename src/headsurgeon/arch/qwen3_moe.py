"""Qwen3-MoE: Qwen3's attention, one sliding window or none, a mixture of experts as MLP."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import same_window, separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Qwen3-MoE model; MLPs of the layers without experts are not looked at."""
    return separate(config, bias=config.attention_bias, mlp=None, windows=same_window(config))
