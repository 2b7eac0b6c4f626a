"""OLMo: Llama's form; what Q, K and V project may be clamped."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of an OLMo model."""
    return separate(config, bias=config.attention_bias, clip=config.clip_qkv)
