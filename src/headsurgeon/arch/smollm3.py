"""SmolLM3: Llama's form; every fourth layer has no rotation, and perhaps a sliding window."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a SmolLM3 model."""
    return separate(config, bias=config.attention_bias, windows=windows_by_type(config))
