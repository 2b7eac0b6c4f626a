"""Granite: Llama's form with factors of its own on attention scores and logits."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Granite model."""
    return separate(
        config,
        bias=config.attention_bias,
        scale=config.attention_multiplier,
        logit_factor=1.0 / config.logits_scaling,
    )
