"""Cohere's Command R7B and its like: sliding windows with rotation, full layers without."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Cohere 2 model."""
    return separate(
        config,
        bias=config.attention_bias,
        windows=windows_by_type(config),
        logit_factor=config.logit_scale,
    )
