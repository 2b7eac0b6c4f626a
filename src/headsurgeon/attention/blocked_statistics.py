"""Row statistics in blocks of queries: exact for any mask or bias, O(block·T) memory per head.

This is the reference that every faster path is compared with.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.row_statistics import RowStatistics

BLOCK = 128


def blocked_statistics(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    key_bias: Float[Tensor, "head row"],
    scale: float,
    block: int = BLOCK,
    *,
    mask: Tensor | None = None,
    softcap: float | None = None,
    sinks: Float[Tensor, " head"] | None = None,
    held_in: torch.dtype = torch.float32,
) -> RowStatistics:
    """Statistics of causal attention with any bias, mask, cap or learned sink.

    Scores, softmax and sums are taken in fp32 whatever the dtype of `query` and `key`; one block of
    rows is held at a time.

    A learned sink is one more entry of every row, which nobody reads: the probabilities of the keys
    then sum to less than 1, in row 0 too. Entropy counts it as an entry, so that a row asleep in
    its sink has entropy 0; mean distance counts it as 0.

    Args:
        query, key: as they enter attention.
        key_bias: added to the scaled scores, by head and key position (ALiBi; 0 without).
        scale: factor on query·key.
        block: rows held at a time.
        mask: what is seen (boolean, True means seen) or added (−∞ or the dtype's lowest number
            where nothing is seen), [batch or 1, head or 1, row, key]; later keys are never seen.
        softcap: limit c of the scores, c·tanh(score / c).
        sinks: score of the learned sink of each head.
        held_in: dtype in which the model holds the bias, and the scores with it, before its
            softmax; the only thing here that is not fp32.
    """
    batch, heads, rows, _ = query.shape
    sums = torch.zeros(5, batch, heads, rows, device=query.device)
    keys = key.float().transpose(-1, -2)
    positions = torch.arange(rows, device=query.device, dtype=torch.float32)
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        # later keys are masked for every row of the block, so they are not computed at all
        scores = query[:, :, start:stop].float() @ keys[..., :stop] * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        scores += key_bias[:, None, :stop].to(held_in)
        scores = scores.to(held_in).float()
        if mask is not None:
            scores = masked(scores, mask[:, :, start:stop, :stop])
        here = positions[start:stop, None]
        scores = scores.masked_fill(positions[:stop] > here, -torch.inf)
        if sinks is not None:
            sink = sinks.float()[:, None, None].expand(batch, heads, stop - start, 1)
            scores = torch.cat((scores, sink), dim=-1)
        probabilities = scores.softmax(-1)
        distance = here - positions[:stop]
        sums[0, :, :, start:stop] = probabilities[..., 0]
        sums[1, :, :, start:stop] = torch.special.entr(probabilities).sum(-1)
        probabilities = probabilities[..., :stop]
        sums[2, :, :, start:stop] = (probabilities * distance).sum(-1)
        sums[3, :, :, start:stop] = (probabilities * (distance == 1)).sum(-1)
        sums[4, :, :, start:stop] = (probabilities * (distance <= 2)).sum(-1)
    return RowStatistics(*sums)


def masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores under a boolean or an additive mask, both broadcast."""
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, -torch.inf)
    return scores + mask.float()
