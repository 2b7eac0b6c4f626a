"""Qwen3: a norm on each head's queries and keys, `head_dim` of its own, optional biases."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Qwen3 model; heads share the weights of their norms, which stay frozen."""
    return separate(config, bias=config.attention_bias, windows=windows_by_type(config))
