"""Gemma 2: soft-capped scores, a sliding window in every other layer, its own scale."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type
from headsurgeon.errors import UnsupportedModel


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Gemma 2 model; scores are scaled by `query_pre_attn_scalar`^−½."""
    if getattr(config, "use_bidirectional_attention", None):
        raise UnsupportedModel(
            "Gemma with use_bidirectional_attention=True is an encoder; "
            "expected a causal language model"
        )
    return separate(
        config,
        bias=config.attention_bias,
        scale=config.query_pre_attn_scalar**-0.5,
        windows=windows_by_type(config),
        softcap=config.attn_logit_softcapping,
        logit_softcap=config.final_logit_softcapping,
    )
