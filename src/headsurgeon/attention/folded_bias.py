"""A bias on the keys as extra features of queries and keys: softmax(q·k + b_j) needs no mask.

With q̃_t = [q_t, a] and k̃_j = [k_j, (b_j − b_c)/(a·scale)], scale·q̃·k̃ is the biased score less
the constant b_c, which softmax ignores. So a stock fused kernel runs ALiBi with `is_causal=True`.
Any bias that depends on the key alone can be folded, whether straight (BLOOM, MPT) or a staircase
(Falcon). `kernel_attention.py` and `kernel_statistics.py` run on it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Kernels are fastest, and some only work, with widths that are multiples of this.
WIDTH_STEP = 8
# Key features stay below this, far from the 65,504 where fp16 ends and fine enough for its steps.
LARGEST_FEATURE = 1024.0
# A low-precision number keeps 8 (bf16) or 11 (fp16) bits: three together hold a float32.
PARTS = {torch.float32: 1, torch.float64: 1, torch.bfloat16: 3, torch.float16: 3}


@dataclass(frozen=True)
class FoldedBias:
    """A key bias as features.

    Attributes:
        query_feature: the same for every query, a power of two, so that no product is rounded.
        key_features: one feature per part; they add up to the bias over query_feature·scale.
    """

    query_feature: float
    key_features: Float[Tensor, "head row part"]


def centred(key_bias: Float[Tensor, "head row"]) -> Float[Tensor, "head row"]:
    """The bias less its value mid-sequence: the same softmax from smaller numbers."""
    middle = key_bias.shape[-1] // 2
    return key_bias - key_bias[:, middle : middle + 1]


def fold_bias(key_bias: Float[Tensor, "head row"], scale: float, dtype: torch.dtype) -> FoldedBias:
    """The features that stand for `key_bias` in a kernel that multiplies scores by `scale`.

    Args:
        key_bias: what is added to the scaled scores, fp32.
        scale: the kernel's factor on query·key.
        dtype: of queries and keys; below fp32 the feature is split into three parts whose sum is
            exact to fp32.
    """
    exact = centred(key_bias) / scale
    largest = float(exact.abs().max())
    doublings = max(0, math.ceil(math.log2(largest / LARGEST_FEATURE))) if largest else 0
    query_feature = 2.0**doublings
    rest = exact / query_feature
    parts = []
    for _ in range(PARTS[dtype]):
        part = rest.to(dtype)
        parts.append(part)
        rest = rest - part.to(rest.dtype)
    return FoldedBias(query_feature, torch.stack(parts, dim=-1))


def padded(width: int) -> int:
    """The next width that kernels like."""
    return math.ceil(width / WIDTH_STEP) * WIDTH_STEP


def widen(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    folded: FoldedBias,
    total: int,
) -> tuple[Float[Tensor, "batch head row wide"], Float[Tensor, "batch head row wide"]]:
    """Queries and keys with the bias as features, padded with zeros to the width `total`."""
    batch, heads, rows, width = query.shape
    parts = folded.key_features.shape[-1]
    spare = total - width - parts
    constant = query.new_full((1, 1, 1, 1), folded.query_feature).expand(batch, heads, rows, parts)
    features = folded.key_features.to(key.dtype).expand(batch, heads, rows, parts)
    zeros = query.new_zeros((1, 1, 1, 1)).expand(batch, heads, rows, spare)
    return torch.cat((query, constant, zeros), -1), torch.cat((key, features, zeros), -1)
