"""What the log keeps of every head: few digits, so that a hundred evaluations stay below 2 MB."""

from typing import TypedDict

import numpy as np

from headsurgeon.evaluation.head_drift import Drift
from headsurgeon.head_stats import HeadStats

# digits behind the point: a hundredth of the smallest change that anything here counts
LOGGED = {"first_token_mass": 5, "entropy": 4, "mean_distance": 3}


class ZoneDrift(TypedDict):
    """How far the heads of one zone are from the untouched model's.

    Attributes:
        heads: number of them.
        could_drift: those that do not keep all they read and all they are; all operated ones.
        drifted: heads whose mass changed by more than 0.05.
        mean, largest: of |change of mass| over those that could drift, fraction; None without any.
    """

    heads: int
    could_drift: int
    drifted: int
    mean: float | None
    largest: float | None


def head_table(stats: HeadStats) -> dict[str, list[list[float | None]]]:
    """The logged statistics, [layer][head], rounded; None in layers without attention."""
    return {
        name: [
            [None if np.isnan(value) else round(float(value), digits) for value in row]
            for row in stats.mean(name)
        ]
        for name, digits in LOGGED.items()
    }


def zone_drift(drift: Drift, confined: bool = True) -> dict[str, ZoneDrift]:
    """The size of the drift of heads operated on, watched, and outside the plan.

    `confined` says that nothing but the operated heads was trained, so that others keep what they
    are, and some what they read.
    """
    fixed = drift.structural_zeros if confined else np.zeros_like(drift.structural_zeros)
    attends = np.isfinite(drift.mass_change)
    operated, watched = np.zeros_like(attends), np.zeros_like(attends)
    for mask, heads in ((operated, drift.operated), (watched, drift.watched)):
        for head in heads:
            mask[head] = True
    zones = {
        "operated": operated,
        "watched": watched & ~operated,
        "outside": attends & ~watched & ~operated,
    }
    return {
        name: _of_zone(drift, zone & attends, zone & attends & ~fixed)
        for name, zone in zones.items()
    }


def _of_zone(drift: Drift, zone: np.ndarray, free: np.ndarray) -> ZoneDrift:
    change = np.abs(drift.mass_change[free])
    return ZoneDrift(
        heads=int(zone.sum()),
        could_drift=int(free.sum()),
        drifted=int((change > drift.threshold).sum()),
        mean=round(float(change.mean()), 6) if len(change) else None,
        largest=round(float(change.max()), 6) if len(change) else None,
    )
