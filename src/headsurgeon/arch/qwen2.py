"""Qwen2 and Qwen2.5: biases on Q, K and V but not on the output; windows in the later layers."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Qwen2 model."""
    return separate(config, bias=True, windows=windows_by_type(config))
