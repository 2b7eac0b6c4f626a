"""Cohere's Command R: Llama's form, attention beside the MLP, optional norms per head."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Cohere model."""
    return separate(config, bias=config.attention_bias)
