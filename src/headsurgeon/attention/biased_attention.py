"""Causal attention with a layout's own bias, by tiles or by a kernel, whichever is faster."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.arch import Layout
from headsurgeon.attention.folded_bias import FoldedBias, fold_bias
from headsurgeon.attention.kernel_attention import kernel_attention
from headsurgeon.attention.tiled_attention import tiled_attention, tiles_are_faster

# Computes one layer's attention: (layer, query, key, value) → each head's output.
Attend = Callable[
    [
        int,
        Float[Tensor, "batch head row width"],
        Float[Tensor, "batch head row width"],
        Float[Tensor, "batch head row width"],
    ],
    Float[Tensor, "batch head row width"],
]


def biased_attention(layout: Layout) -> Attend:
    """Attention as the layout describes it; the bias is made ready once per length."""
    biases: dict[tuple[int, torch.device], Tensor] = {}
    folded: dict[tuple[int, torch.device, torch.dtype], FoldedBias] = {}

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, device, dtype = query.shape[2], query.device, query.dtype
        if (rows, device) not in biases:
            biases[rows, device] = layout.key_bias(rows, device)
        bias = biases[rows, device]
        if tiles_are_faster(device, dtype):
            return tiled_attention(query, key, value, bias, layout.scale)
        if (rows, device, dtype) not in folded:
            folded[rows, device, dtype] = fold_bias(bias, layout.scale, dtype)
        return kernel_attention(query, key, value, folded[rows, device, dtype], layout.scale)

    return attend
