"""Causal scores with a bias on the keys, in tiles that fit the processor's cache.

Where no kernel keeps scores in registers, a tile of scores that stays in the cache is the next best
thing: every pass over it costs little. Statistics
(`tiled_statistics.py`) and attention itself (`tiled_attention.py`) are both made of such passes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.head_threads import share_out, threads_for

# The numbers that one thread may write over.
Scratch = Float[Tensor, "place number"]
# Query rows of a tile: more would compute more scores of later keys, fewer make products slow.
ROWS = 128
# Scores a thread holds at a time: enough for operations to be large, few enough for the caches.
NUMBERS = 2**20
# exp takes twice the time of exp2, so scores are in units of log 2.
UNIT = math.log(2)
# Where tiles are the fast way: measured on two processors, see docs/log.md.
TILED_DEVICES = frozenset({"cpu"})


@dataclass(frozen=True)
class Tile:
    """Some query rows of some heads, and all the keys, from the first, that the last row sees."""

    heads: slice
    rows: slice
    keys: slice

    @property
    def shape(self) -> tuple[int, int, int]:
        """Heads, rows and keys."""
        return (
            self.heads.stop - self.heads.start,
            self.rows.stop - self.rows.start,
            self.keys.stop,
        )


class TiledScores:
    """The scores of every head, a tile at a time, in reused memory.

    Args:
        query, key: contiguous, fp32; heads of all windows one after another.
        key_bias: added to the scaled scores, for the heads of one window or of all.
        scale: factor on query·key.
        held: how many tiles of scratch memory each thread needs, that of the scores included.
    """

    def __init__(
        self,
        query: Float[Tensor, "head row width"],
        key: Float[Tensor, "head row width"],
        key_bias: Float[Tensor, "some row"],
        scale: float,
        held: int,
    ) -> None:
        self._queries = query
        self._factor = scale / UNIT
        self._keys = key.transpose(1, 2)
        self._bias = (key_bias / UNIT).repeat(len(query) // len(key_bias), 1)[:, None]
        # added rather than filled in by a mask, which takes several times as long
        self._later = query.new_full((ROWS, ROWS), -torch.inf).triu(1)
        heads, rows, _ = query.shape
        self._threads = threads_for(query.device, heads, heads * rows * rows)
        # memory that is allocated again for every tile comes from the system, page by page
        largest = max((math.prod(tile.shape) for tile in self.tiles()), default=0)
        self._scratch = query.new_empty(self._threads, held, largest)

    def each(self, run: Callable[[Tile, Scratch], None]) -> None:
        """Calls `run` on every tile; the tiles of one head one after another, first rows first."""
        heads = len(self._queries)

        def run_some(thread: int, some: slice) -> None:
            for tile in self.tiles(some):
                run(tile, self._scratch[thread])

        share_out(heads, self._threads, run_some)

    def tiles(self, some: slice | None = None) -> Iterator[Tile]:
        """The tiles of some heads, or of all."""
        heads, rows, _ = self._queries.shape
        some = some or slice(0, heads)
        for start in range(0, rows, ROWS):
            stop = min(start + ROWS, rows)
            group = max(1, NUMBERS // ((stop - start) * stop))
            for first in range(some.start, some.stop, group):
                taken = slice(first, min(first + group, some.stop))
                yield Tile(taken, slice(start, stop), slice(0, stop))

    def of(self, tile: Tile, scratch: Scratch) -> Float[Tensor, "head row key"]:
        """The tile's scores over log 2, −∞ on later keys, up to a constant of each head.

        The constant is the bias of the tile's last key: large numbers would cost the near keys
        digits, and softmax ignores it.
        """
        last = tile.keys.stop - 1
        bias = self._bias[tile.heads]
        scores = torch.baddbmm(
            bias[..., tile.keys] - bias[..., last : last + 1],
            self._queries[tile.heads, tile.rows],
            self._keys[tile.heads, :, tile.keys],
            alpha=self._factor,
            out=spare(tile, scratch, 0),
        )
        rows = tile.shape[1]
        scores[..., tile.rows] += self._later[:rows, :rows]
        return scores


def spare(tile: Tile, scratch: Scratch, place: int) -> Float[Tensor, "head row key"]:
    """Scratch memory of the tile's shape; `place` 0 is where its scores are."""
    return scratch[place, : math.prod(tile.shape)].view(tile.shape)
