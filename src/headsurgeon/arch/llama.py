"""Llama, and what is saved as Llama: SmolLM, TinyLlama, Yi, DeepSeek-LLM and others."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Llama model; `attention_bias` gives all four projections a bias."""
    return separate(config, bias=config.attention_bias)
