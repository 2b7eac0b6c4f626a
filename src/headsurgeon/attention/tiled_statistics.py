"""Row statistics in tiles that fit the processor's cache: O(T) memory, public operators alone.

In a tile the entropy, which a kernel can only give through extra value columns, is a product and a
sum. On a CPU this takes about as long as the fused kernel needs for the output alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.row_statistics import RowStatistics
from headsurgeon.attention.tiled_scores import UNIT, Scratch, Tile, TiledScores, spare

# exp2 below this is a denormal number, on which some processors are many times slower.
LOWEST = -115.0


def tiled_statistics(
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
        The same statistics as `blocked_statistics`, and the attention output (fp32) or None.
    """
    batch, heads, rows, width = query.shape
    queries = query.float().reshape(-1, rows, width)
    tiles = TiledScores(
        queries, key.float().reshape(-1, rows, width), key_bias.float(), scale, held=2
    )
    values = None if value is None else value.float().reshape(-1, rows, value.shape[-1])
    positions = torch.arange(rows, device=query.device, dtype=torch.float32)
    # first token, Σ p·log2 p/p_max, mean position, t, t − 1, t − 2; all before division by Σ p
    sums = queries.new_zeros(6, batch * heads, rows)
    total = queries.new_zeros(batch * heads, rows)
    output = None if values is None else torch.empty_like(values)

    def sum_up(tile: Tile, scratch: Scratch) -> None:
        part = tile.heads, tile.rows
        scores = tiles.of(tile, scratch)
        scores -= scores.amax(-1, keepdim=True)
        scores.clamp_(min=LOWEST)
        weights = torch.exp2(scores, out=spare(tile, scratch, 1))
        if output is not None and values is not None:
            torch.bmm(weights, values[tile.heads, tile.keys], out=output[part])
        total[part] = weights.sum(-1)
        sums[0][part] = weights[..., 0]
        sums[1][part] = scores.mul_(weights).sum(-1)
        sums[2][part] = weights @ positions[tile.keys]
        for back in range(3):
            # in the first rows there is no such position
            seen = slice(max(tile.rows.start, back), tile.rows.stop)
            diagonal = weights.diagonal(tile.rows.start - back, 1, 2)
            sums[3 + back, tile.heads, seen] = diagonal

    tiles.each(sum_up)
    shares = (sums / total).unflatten(1, (batch, heads))
    first_token, mean_score, position, *local = shares
    entropy = UNIT * (total.log2().view_as(mean_score) - mean_score)
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
