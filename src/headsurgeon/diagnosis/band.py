"""The sick band: which head indices and layers hold most of the sick heads."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class SickBand:
    """A range of head indices and a range of layers, all inclusive.

    Attributes:
        first_head, last_head: the head indices.
        first_layer, last_layer: the layers.
        sick: sick heads inside.
        share: sick heads inside over all sick heads, fraction.
    """

    first_head: int
    last_head: int
    first_layer: int
    last_layer: int
    sick: int
    share: float

    def __str__(self) -> str:
        return (
            f"heads {self.first_head}–{self.last_head}, layers {self.first_layer}–{self.last_layer}"
        )


def sick_band(sick: Bool[np.ndarray, "layer head"]) -> SickBand | None:
    """The band as the paper would name it ("heads 9–15"), or None without a sick head.

    Among all runs of neighbouring head indices it is the one with the largest Σ (count − half the
    largest count), where count is the number of sick layers at an index; ties go to the longer run,
    then to the lower indices. So a lone sick column apart from the band stays outside of it, and
    one healthy column within the band does not split it. The layers are found in the same way among
    the heads of the band. (Largest-scoring run: Ruzzo & Tompa 1999.)
    """
    if not sick.any():
        return None
    first_head, last_head = _run(sick.sum(axis=0))
    inside = sick[:, first_head : last_head + 1]
    first_layer, last_layer = _run(inside.sum(axis=1))
    count = int(inside[first_layer : last_layer + 1].sum())
    return SickBand(first_head, last_head, first_layer, last_layer, count, count / int(sick.sum()))


def code_band(sick: Bool[np.ndarray, "layer head"]) -> tuple[int, int] | None:
    """The band as the paper's code finds it: first and last head index, or None without any.

    It takes every index that is sick in more than 30 % of the layers, and all that lies between
    them. The bands that the paper reports are narrower than what this gives on its own figures;
    they were chosen by hand.
    """
    often = np.flatnonzero(sick.mean(axis=0) > 0.3)
    return (int(often[0]), int(often[-1])) if len(often) else None


def _run(counts: Int[np.ndarray, " index"]) -> tuple[int, int]:
    # doubled, so that scores are whole numbers and ties are exact
    scores = 2 * counts - counts.max()
    sums = np.concatenate([[0], np.cumsum(scores)])
    runs = (
        (int(sums[last + 1] - sums[first]), last - first, -first)
        for first in range(len(counts))
        for last in range(first, len(counts))
    )
    _, length, negative_first = max(runs)
    return -negative_first, length - negative_first
