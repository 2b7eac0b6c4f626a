"""Row statistics in blocks of queries: exact for any mask or bias, O(block·T) memory per head.

This is the reference that every faster path is compared with.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.rows import RowStatistics

BLOCK = 128


def blocked_rows(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    key_bias: Float[Tensor, "head row"],
    scale: float,
    block: int = BLOCK,
) -> RowStatistics:
    """Statistics of causal attention with a bias that depends on the key alone (ALiBi or none).

    Scores, softmax and sums are taken in fp32 whatever the dtype of `query` and `key`; one block of
    rows is held at a time.
    """
    batch, heads, rows, _ = query.shape
    sums = torch.zeros(5, batch, heads, rows, device=query.device)
    keys = key.float().transpose(-1, -2)
    positions = torch.arange(rows, device=query.device, dtype=torch.float32)
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        # later keys are masked for every row of the block, so they are not computed at all
        scores = query[:, :, start:stop].float() @ keys[..., :stop] * scale
        scores += key_bias[:, None, :stop]
        here = positions[start:stop, None]
        probabilities = scores.masked_fill(positions[:stop] > here, -torch.inf).softmax(-1)
        distance = here - positions[:stop]
        sums[0, :, :, start:stop] = probabilities[..., 0]
        sums[1, :, :, start:stop] = torch.special.entr(probabilities).sum(-1)
        sums[2, :, :, start:stop] = (probabilities * distance).sum(-1)
        sums[3, :, :, start:stop] = (probabilities * (distance == 1)).sum(-1)
        sums[4, :, :, start:stop] = (probabilities * (distance <= 2)).sum(-1)
    return RowStatistics(*sums)
