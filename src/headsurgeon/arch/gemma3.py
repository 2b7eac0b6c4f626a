"""Gemma 3: as Gemma 2, with norms on each head's queries and keys; text alone or with images."""

from dataclasses import replace

from transformers import PretrainedConfig

from headsurgeon.arch import gemma2
from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe_text(config: PretrainedConfig) -> Layout:
    """The layout of a Gemma 3 text model; its scores are not capped, whatever is configured."""
    return replace(gemma2.describe(config), softcap=None)


def describe(config: PretrainedConfig) -> Layout:
    """The layout of the text model inside a Gemma 3 that also reads images."""
    text = config.text_config
    return separate(
        text,
        family=config.model_type,
        bias=text.attention_bias,
        stack="model.language_model.layers.{layer}",
        scale=text.query_pre_attn_scalar**-0.5,
        windows=windows_by_type(text),
    )
