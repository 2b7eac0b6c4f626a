"""Queries and keys that find a token again, along the directions in which that is clearest.

What `headsurgeon.starts.fitted` compares in random directions is compared here in canonical ones.
With S_q(c) the sum of the layer's centred input over places that ask for token c, S_k(c) that over
places at which c is found, n_q(c) and n_k(c) how many there are, and Σ the covariance of the input,

    Σ^(−1/2) · Σ_c S_q(c)·S_k(c)ᵀ / √(n_q(c)·n_k(c)) · Σ^(−1/2) = U·S·Vᵀ

the first k columns, as many as a head is wide and 16 at the most, give W_Q = (Σ^(−1/2)·U_k·√S_k)ᵀ
and W_K = (Σ^(−1/2)·V_k·√S_k)ᵀ: of all scores of this rank and spread those in which a token stands
out most where it is asked for, every token weighted by the root of how often it occurs.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headsurgeon.starts.fitted import (
    COMPARED,
    gap,
    inverse_root,
    match_values,
    put,
    repetitions,
)
from headsurgeon.starts.fresh import xavier_uniform_head
from headsurgeon.starts.head_tensors import HeadTensors, StartContext

# how far the score of a place that is looked for stands above that of any other
_MATCH = 12.0


def canonical(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Q and K that look behind earlier places of the present token, values as `gradient_matched`.

    As in `induction`, but in canonical directions, which are the same for all heads of a layer:
    they differ in their slopes, where the family has some, and in their values.
    """
    xavier_uniform_head(heads, context)
    layout, tokens = context.layout, context.seen.tokens
    inputs = context.seen.layer_input(context.layer)[:, 1:]
    asked, attended = tokens[:, 1:], tokens[:, :-1]
    mean = inputs.mean(dim=(0, 1))
    centred = inputs - mean
    query, key = _directions(centred, asked, attended, min(COMPARED, layout.head_dim))
    scores = (centred @ query.T) @ (centred @ key.T).transpose(1, 2)
    size = sqrt(_MATCH / (gap(scores, repetitions(tokens)) * layout.scale))
    for head in heads:
        for part, weight in (("query", query), ("key", key)):
            put(head, part, weight * size, -(weight @ mean) * size)
    match_values(heads, context)


def _directions(
    centred: Float[Tensor, "window row hidden"],
    asked: Int[Tensor, "window row"],
    attended: Int[Tensor, "window row"],
    width: int,
) -> tuple[Float[Tensor, "width hidden"], Float[Tensor, "width hidden"]]:
    """W_Q and W_K of centred input, before they are scaled."""
    flat = centred.flatten(0, 1)
    whitening = inverse_root(flat.T @ flat / len(flat))
    tokens, index = torch.stack([asked.flatten(), attended.flatten()]).unique(return_inverse=True)
    asking, finding = (_weighted_sums(flat, of, len(tokens)) for of in index)
    left, strength, right = torch.linalg.svd(whitening @ asking.T @ finding @ whitening)
    root = strength[:width].sqrt()
    return (whitening @ left[:, :width] * root).T, (whitening @ right.T[:, :width] * root).T


def _weighted_sums(
    vectors: Float[Tensor, "place hidden"], index: Int[Tensor, " place"], count: int
) -> Float[Tensor, "token hidden"]:
    """Sum of the vectors of each token over the root of their number; 0 where it has none."""
    sums = vectors.new_zeros(count, vectors.shape[1]).index_add_(0, index, vectors)
    return sums / index.bincount(minlength=count).clamp(min=1).to(sums).sqrt()[:, None]
