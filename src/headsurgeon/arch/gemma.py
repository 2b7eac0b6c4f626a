"""Gemma: Llama's form with a `head_dim` of its own."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate
from headsurgeon.errors import UnsupportedModel


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Gemma model."""
    if getattr(config, "use_bidirectional_attention", None):
        raise UnsupportedModel(
            "Gemma with use_bidirectional_attention=True is an encoder; "
            "expected a causal language model"
        )
    return separate(config, bias=config.attention_bias)
