"""Gemma: a `head_dim` of its own; from Gemma 2 on windows, soft caps and a scale of its own."""

from dataclasses import replace

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type
from headsurgeon.errors import UnsupportedModel


def gemma(config: PretrainedConfig) -> Layout:
    """The layout of a Gemma model."""
    _check_causal(config)
    return separate(config, bias=config.attention_bias)


def gemma2(config: PretrainedConfig) -> Layout:
    """The layout of a Gemma 2 model; scores are scaled by `query_pre_attn_scalar`^−½."""
    _check_causal(config)
    return separate(
        config,
        bias=config.attention_bias,
        scale=config.query_pre_attn_scalar**-0.5,
        windows=windows_by_type(config),
        softcap=config.attn_logit_softcapping,
        logit_softcap=config.final_logit_softcapping,
    )


def gemma3_text(config: PretrainedConfig) -> Layout:
    """The layout of a Gemma 3 text model; its scores are not capped, whatever is configured."""
    return replace(gemma2(config), softcap=None)


def gemma3(config: PretrainedConfig) -> Layout:
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


def _check_causal(config: PretrainedConfig) -> None:
    if getattr(config, "use_bidirectional_attention", None):
        raise UnsupportedModel(
            "Gemma with use_bidirectional_attention=True is an encoder; "
            "expected a causal language model"
        )
