"""Causal attention with a key bias through PyTorch's own fused kernel, forward and backward."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from headsurgeon.attention.folded_bias import FoldedBias, padded, widen


def kernel_attention(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    value: Float[Tensor, "batch head row width"],
    folded: FoldedBias,
    scale: float,
) -> Float[Tensor, "batch head row width"]:
    """softmax(scale·query·key + bias)·value over the keys up to each row; differentiable.

    Args:
        folded: the bias, made by `fold_bias` with the same `scale` and the dtype of `query`.
        scale: factor on query·key.
    """
    width = query.shape[-1]
    total = padded(width + folded.key_features.shape[-1])
    wide_query, wide_key = widen(query, key, folded, total)
    # a value of another width than the keys would lose the fused kernel on the CPU
    wide_value = functional.pad(value, (0, total - width))
    # autocast would round the one-part feature of fp32 queries
    with torch.autocast(query.device.type, enabled=False):
        context = functional.scaled_dot_product_attention(
            wide_query, wide_key, wide_value, is_causal=True, scale=scale
        )
    return context[..., :width]
