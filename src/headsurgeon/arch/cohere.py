"""Cohere's Command R: attention beside the MLP, optional norms per head, scaled logits."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Cohere model."""
    return separate(config, bias=config.attention_bias, logit_factor=config.logit_scale)
