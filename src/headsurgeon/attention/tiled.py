"""Row statistics in tiles that fit the processor's cache: O(T) memory, public operators alone.

Where no kernel keeps scores in registers, a tile of scores that stays in the cache is the next best
thing: every pass over it costs little, so the entropy, which a kernel can only give through extra
value columns, is a product and a sum. On a CPU this takes about as long as the fused kernel needs
for the output alone.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.rows import RowStatistics

# Query rows of a tile: more would compute more scores of later keys, fewer make products slow.
ROWS = 128
# Scores held at a time: enough heads to keep every thread busy, few enough for the caches.
NUMBERS = 2**20
# exp2 below this is a denormal number, on which some processors are many times slower.
LOWEST = -115.0


def tiled_rows(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    key_bias: Float[Tensor, "head row"],
    scale: float,
    value: Float[Tensor, "batch head row value"] | None = None,
) -> tuple[RowStatistics, Float[Tensor, "batch head row value"] | None]:
    """Statistics of causal attention with a key bias, and the heads' outputs if asked for.

    Probabilities below 2^−115 count as 2^−115. Works in fp32 whatever comes in. No gradients flow.

    Args:
        query, key: as they enter attention.
        key_bias: added to the scaled scores, by head and key position.
        scale: factor on query·key.
        value: averaged by the probabilities; leave out where the output is not wanted.

    Returns:
        The same statistics as `blocked_rows`, and the attention output (fp32) or None.
    """
    batch, heads, rows, width = query.shape
    # exp2 takes half the time of exp, so scores are in units of log 2
    queries = (query.float() * (scale / math.log(2))).reshape(-1, rows, width)
    keys = key.float().reshape(-1, rows, width).transpose(1, 2)
    values = None if value is None else value.float().reshape(-1, rows, value.shape[-1])
    bias = key_bias.float().repeat(batch, 1)[:, None]
    positions = torch.arange(rows, device=query.device, dtype=torch.float32)
    # added rather than filled in by a mask, which takes several times as long
    later = torch.full((ROWS, ROWS), -torch.inf, device=query.device).triu(1)
    # first token, Σ p·log2 p/p_max, mean position, t, t − 1, t − 2; all before division by Σ p
    sums = queries.new_zeros(6, batch * heads, rows)
    total = queries.new_zeros(batch * heads, rows)
    output = None if values is None else torch.empty_like(values)
    # memory that is asked for anew for every tile comes from the system, page by page
    scratch = queries.new_empty(2, max(NUMBERS, min(ROWS, rows) * rows))
    for start in range(0, rows, ROWS):
        stop = min(start + ROWS, rows)
        square = later[: stop - start, : stop - start]
        group = max(1, NUMBERS // ((stop - start) * stop))
        for first in range(0, batch * heads, group):
            part = slice(first, min(first + group, batch * heads))
            shape = (part.stop - first, stop - start, stop)
            scores, weights = (held[: math.prod(shape)].view(shape) for held in scratch)
            torch.bmm(queries[part, start:stop], keys[part, :, :stop], out=scores)
            # less what it is at the end of the tile: large numbers would cost the near keys digits
            near = bias[part, :, :stop] - bias[part, :, stop - 1 : stop]
            scores += near / math.log(2)
            scores[..., start:] += square
            scores -= scores.amax(-1, keepdim=True)
            scores.clamp_(min=LOWEST)
            torch.exp2(scores, out=weights)
            if output is not None and values is not None:
                output[part, start:stop] = weights @ values[part, :stop]
            total[part, start:stop] = weights.sum(-1)
            sums[0, part, start:stop] = weights[..., 0]
            sums[1, part, start:stop] = scores.mul_(weights).sum(-1)
            sums[2, part, start:stop] = weights @ positions[:stop]
            for back in range(3):
                # in the first rows there is no such position
                seen = slice(max(start, back), stop)
                sums[3 + back, part, seen] = weights.diagonal(start - back, 1, 2)
    shares = (sums / total).unflatten(1, (batch, heads))
    first_token, mean_score, position, *local = shares
    entropy = math.log(2) * (total.log2().view_as(mean_score) - mean_score)
    statistics = RowStatistics(
        first_token=first_token,
        entropy=entropy.clamp(min=0.0),
        distance=(positions - position).clamp(min=0.0),
        previous=local[1],
        local=(local[0] + local[1] + local[2]).clamp(max=1.0),
    )
    if output is None:
        return statistics, None
    output /= total[..., None]
    return statistics, output.unflatten(0, (batch, heads))
