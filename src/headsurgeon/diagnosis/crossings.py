"""When heads collapse in the course of training, and when they come back: one rule, numpy alone.

A head that was healthy has *collapsed* once the interval of its mean mass lay wholly above the
limit of sickness at so many measurements in a row (`patience`); it has *come back* once it lay
wholly at or below the limit as often. Either happened at the first of these measurements (its
onset) and is noticed at the last. What a head is at the first measurement of all is decided by its
mean: a head that is sick from the start did not collapse before our eyes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from headsurgeon.diagnosis.verdicts import Thresholds
from headsurgeon.heads import HeadId

COLLAPSED: Literal["collapsed"] = "collapsed"
CAME_BACK: Literal["came back"] = "came back"


@dataclass(frozen=True)
class Crossing:
    """A head that crossed the limit between healthy and sick, and stayed beyond it.

    Attributes:
        head: which.
        kind: `collapsed` or `came back`.
        measured: index of the first measurement at which its interval is clear of the limit.
        noticed: index of the measurement that made it certain.
    """

    head: HeadId
    kind: Literal["collapsed", "came back"]
    measured: int
    noticed: int


def find_crossings(
    mass: Float[np.ndarray, "time layer head"],
    low: Float[np.ndarray, "time layer head"],
    high: Float[np.ndarray, "time layer head"],
    thresholds: Thresholds,
    patience: int,
) -> tuple[Crossing, ...]:
    """All crossings, in the order in which they are noticed.

    Args:
        mass: mean first-token mass at every measurement, fraction; NaN where there is no head.
        low: lower bound of its interval; a NaN (one document alone) is clear of nothing.
        high: upper bound.
        thresholds: its `sink` is the limit.
        patience: how many measurements in a row make a crossing, 1 or more.
    """
    crossings: list[Crossing] = []
    if len(mass) == 0:
        return ()
    sick = thresholds.is_sick(mass[0])
    streak = np.zeros(sick.shape, dtype=np.int64)
    for now in range(len(mass)):
        beyond = _beyond(sick, low[now], high[now], thresholds)
        streak = np.where(beyond, streak + 1, 0)
        for place in np.argwhere(streak >= patience):
            head = HeadId(int(place[0]), int(place[1]))
            kind = CAME_BACK if sick[head] else COLLAPSED
            crossings.append(Crossing(head, kind, now - patience + 1, now))
            sick[head], streak[head] = not sick[head], 0
    return tuple(crossings)


def crossed(crossings: Sequence[Crossing], kind: str, noticed: int) -> tuple[HeadId, ...]:
    """The heads of one kind that one measurement made certain."""
    return tuple(each.head for each in crossings if (each.kind, each.noticed) == (kind, noticed))


def _beyond(
    sick: Bool[np.ndarray, "layer head"],
    low: Float[np.ndarray, "layer head"],
    high: Float[np.ndarray, "layer head"],
    thresholds: Thresholds,
) -> Bool[np.ndarray, "layer head"]:
    """Whether the whole interval of a head lies on the side where it was not."""
    healthy_now = np.isfinite(high) & ~thresholds.is_sick(high)
    return np.where(sick, healthy_now, thresholds.is_sick(low))
