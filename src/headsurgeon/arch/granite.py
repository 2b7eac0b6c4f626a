"""Granite: Llama's form with a scale of its own, `attention_multiplier`."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Granite model."""
    return separate(config, bias=config.attention_bias, scale=config.attention_multiplier)
