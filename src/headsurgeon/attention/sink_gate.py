"""What a head leaves for other tokens than the first, with gradients, in blocks of rows."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from headsurgeon.attention.blocked_statistics import BLOCK, masked


def sink_gate(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    key_bias: Float[Tensor, "head row"],
    scale: float,
    block: int = BLOCK,
    *,
    mask: Tensor | None = None,
    softcap: float | None = None,
) -> Float[Tensor, "batch head later_row"]:
    """1 − the probability on position 0 of every row but the first, where it is always 1.

    As σ(ℓ − s₀), with s₀ the score of position 0 and ℓ the log-sum-exp of all others
    (arXiv:2602.01203), so that what little a dead head leaves is not lost to rounding. Scores are
    fp32; forward and backward hold one block of them, which the backward computes again.

    Args:
        query, key, key_bias, scale, block, mask, softcap: as `blocked_statistics`.
    """
    rows = query.shape[2]
    parts = [
        checkpoint(
            _gate_of_block,
            query,
            key,
            key_bias,
            scale,
            start,
            min(start + block, rows),
            mask,
            softcap,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for start in range(1, rows, block)
    ]
    return torch.cat(parts, -1)


def _gate_of_block(
    query: Tensor,
    key: Tensor,
    key_bias: Tensor,
    scale: float,
    start: int,
    stop: int,
    mask: Tensor | None,
    softcap: float | None,
) -> Tensor:
    scores = query[:, :, start:stop].float() @ key[:, :, :stop].float().transpose(-1, -2) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + key_bias[:, None, :stop]
    if mask is not None:
        scores = masked(scores, mask[:, :, start:stop, :stop])
    positions = torch.arange(stop, device=query.device)
    scores = scores.masked_fill(positions > positions[start:, None], -torch.inf)
    return torch.sigmoid(scores[..., 1:].logsumexp(-1) - scores[..., 0])
