"""What became of every head against the untouched model, whatever happened in between."""

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from headsurgeon.diagnosis import Diagnosis
from headsurgeon.diagnosis.diagnosis import heads_where
from headsurgeon.evaluation import Drift
from headsurgeon.evaluation.head_drift import mask_of
from headsurgeon.records import Finite, HeadName, Record

Zone = Literal["operated", "watched", "outside"]
Count = Annotated[int, Field(ge=0)]


class BecameSick(Record):
    """A head that is sick now and was not in the untouched model.

    Attributes:
        head: the head.
        zone: operated on in one of the passes, watched by one, or outside of all plans.
        before, after: its first-token mass in the untouched model and now, fraction.
        borderline: whether the interval of its mass crosses a threshold now.
    """

    head: HeadName
    zone: Zone
    before: Finite
    after: Finite
    borderline: bool


class ZoneChange(Record):
    """The heads of one zone against the untouched model.

    Attributes:
        heads: number of them.
        can_change: those of them that are not bound to be as they were, since something at or below
            their input was operated on.
        became_sick, became_healthy: healthy then and sick now, and the reverse.
        still_sick: sick then and now.
        drifted: moved their mass by more than the threshold of drift.
    """

    heads: Count
    can_change: Count
    became_sick: Count
    became_healthy: Count
    still_sick: Count
    drifted: Count


def became_sick(untouched: Diagnosis, now: Diagnosis, drift: Drift) -> tuple[BecameSick, ...]:
    """The heads that are sick now and were not in the untouched model, largest change first.

    Args:
        untouched: diagnosis of the model before any operation.
        now: diagnosis on the same windows.
        drift: the comparison of the two, with the heads of all passes.
    """
    zones = _zones(drift)
    found = [
        BecameSick(
            head=head,
            zone=next(name for name, mask in zones.items() if mask[head]),
            before=float(untouched.stats.first_token_mass[head]),
            after=float(now.stats.first_token_mass[head]),
            borderline=bool(now.borderline[head]),
        )
        for head in heads_where(now.is_sick & ~untouched.is_sick)
    ]
    return tuple(sorted(found, key=lambda each: (each.before - each.after, each.head)))


def zone_changes(untouched: Diagnosis, now: Diagnosis, drift: Drift) -> Mapping[Zone, ZoneChange]:
    """Healthy ↔ sick in every zone, counted with and without the heads that cannot change.

    Args:
        untouched, now, drift: as for `became_sick`.
    """
    was, is_now = untouched.is_sick, now.is_sick
    moved = np.abs(drift.mass_change) > drift.threshold
    return {
        name: ZoneChange(
            heads=int(zone.sum()),
            can_change=int((zone & ~drift.structural_zeros).sum()),
            became_sick=int((zone & ~was & is_now).sum()),
            became_healthy=int((zone & was & ~is_now).sum()),
            still_sick=int((zone & was & is_now).sum()),
            drifted=int((zone & moved).sum()),
        )
        for name, zone in _zones(drift).items()
    }


def _zones(drift: Drift) -> dict[Zone, Bool[np.ndarray, "layer head"]]:
    shape = drift.mass_change.shape
    operated, watched = mask_of(drift.operated, shape), mask_of(drift.watched, shape)
    attends = np.isfinite(drift.mass_change)
    return {
        "operated": operated,
        "watched": watched & ~operated,
        "outside": attends & ~watched & ~operated,
    }
