"""What changed between two checkpoints: drift of the heads nobody touched, and who fell sick."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BeforeValidator, Field, PlainSerializer, computed_field, model_validator

from headsurgeon.arguments import checked
from headsurgeon.diagnosis import Thresholds
from headsurgeon.errors import InputError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import HeadId, check_heads, parse_heads
from headsurgeon.planning import Plan
from headsurgeon.records import Finite, HeadName
from headsurgeon.results import Array, Result

DRIFT_MASS = 0.05
# Changes of mass (fraction) and entropy (nats) up to this are rounding.
ROUNDING = 1e-6
# What two measurements must have in common beyond their documents.
_PAIRED = ("split", "length", "lengths", "first_token", "seed", "corpus_hash", "packing")


def _step(value: Any) -> Any:
    return tuple(value.split(" → ")) if isinstance(value, str) else value


# from what a head was to what it is; `healthy → sick` in files
Step = Annotated[tuple[str, str], BeforeValidator(_step), PlainSerializer(" → ".join)]


class Drift(Result):
    """Change of every head between two measurements on the same windows.

    Attributes:
        mass_change, entropy_change: after minus before; fraction and nats; NaN in layers without
            attention, which count nowhere.
        operated: the heads that were operated on.
        watched: the heads that the plan watches: healthy ones among them.
        structural_zeros: heads that *cannot* have changed, since nothing at or below their input
            did. They are counted apart: including them would make the drift look smaller.
        transitions: number of heads by (before, after), such as ("sick", "healthy"), separately
            for `operated` and `untouched` heads; the latter are the `watched` and those `outside`.
        threshold: |change of mass| above which a head counts as drifted, fraction.
    """

    kind: ClassVar[str] = "drift"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    mass_change: Annotated[Float[np.ndarray, "layer head"], Array()]
    entropy_change: Annotated[Float[np.ndarray, "layer head"], Array()]
    operated: tuple[HeadName, ...]
    watched: tuple[HeadName, ...]
    structural_zeros: Annotated[Bool[np.ndarray, "layer head"], Array()]
    transitions: Mapping[str, Mapping[Step, Annotated[int, Field(ge=0)]]]
    threshold: Finite

    @model_validator(mode="after")
    def _of_one_model(self) -> "Drift":
        shape = self.mass_change.shape
        if not shape == self.entropy_change.shape == self.structural_zeros.shape:
            raise ValueError("the changes and the structural zeros are of different shapes")
        check_heads((*self.operated, *self.watched), *shape)
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def drifted(self) -> tuple[HeadName, ...]:
        """Untouched heads that could change and whose mass moved by more than the threshold."""
        moved = np.abs(self.mass_change) > self.threshold
        moved &= self._free
        return tuple(HeadId(int(layer), int(head)) for layer, head in np.argwhere(moved))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def could_drift(self) -> int:
        """Number of untouched heads that were able to change."""
        return int(self._free.sum())

    @property
    def _free(self) -> Bool[np.ndarray, "layer head"]:
        # a change that is no number belongs to a layer without attention
        free = ~self.structural_zeros & np.isfinite(self.mass_change)
        return np.asarray(free & ~mask_of(self.operated, self.mass_change.shape))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def zones(self) -> dict[str, dict[str, int]]:
        """For `watched` heads and those `outside`: how many, and how many could and did drift."""
        watched = mask_of(self.watched, self.mass_change.shape)
        attends = np.isfinite(self.mass_change)
        outside = attends & ~watched & ~mask_of(self.operated, self.mass_change.shape)
        moved = mask_of(self.drifted, self.mass_change.shape)
        return {
            name: {
                "heads": int(zone.sum()),
                "could_drift": int((zone & self._free).sum()),
                "drifted": int((zone & moved).sum()),
            }
            for name, zone in (("watched", watched), ("outside", outside))
        }


@checked
def drift(
    before: HeadStats,
    after: HeadStats,
    operated: Plan | Sequence[str | HeadId] = (),
    *,
    threshold: float = DRIFT_MASS,
    sick_mass: float | None = None,
) -> Drift:
    """Compares two measurements of a model before and after an operation.

    Args:
        before, after: statistics on the same windows.
        operated: the heads operated on in between, or the plan; without it nothing is known to be
            structurally unchanged, and every head counts as able to drift.
        threshold: the paper counts |Δmass| > 0.05.
        sick_mass: mass above which a head is sick, fraction; by default as the plan says.

    Raises:
        InputError: the two were measured on different windows, or hold numbers that are not finite.
    """
    if before.documents != after.documents or before.shape != after.shape:
        raise InputError("drift compares two measurements of the same windows; these differ")
    differing = [
        name
        for name in _PAIRED
        if getattr(before.provenance, name) != getattr(after.provenance, name)
    ]
    if differing:
        raise InputError(
            "drift compares two measurements of the same corpus and windows; different: "
            f"{', '.join(differing)}"
        )
    for name in ("first_token_mass", "entropy"):
        # NaN exceeds no threshold, so such a head would count as healthy and unchanged
        known = np.isfinite(before.mean(name)) & np.isfinite(after.mean(name))
        unknown = np.argwhere(~known & (before.attends | after.attends)[:, None])
        if len(unknown):
            layer, head = map(int, unknown[0])
            raise InputError(
                f"{name} of {HeadId(layer, head)} is not a finite number in both measurements "
                f"({len(unknown)} such heads); measure sound checkpoints"
            )
    if isinstance(operated, Plan):
        operated_heads, watched, limits = operated.operated, operated.watched, operated.limits
    else:
        operated_heads, watched, limits = parse_heads(operated), (), Thresholds()
    if sick_mass is not None:
        limits = Thresholds(sink=sick_mass, dead=max(sick_mass, limits.dead))
    untouched = ~mask_of(operated_heads, before.shape) & before.attends[:, None]
    masks = {
        "operated": mask_of(operated_heads, before.shape),
        "untouched": untouched,
        "watched": mask_of(watched, before.shape),
        "outside": untouched & ~mask_of(watched, before.shape),
    }
    names = np.array(["healthy", "sick"])
    was = names[limits.is_sick(before.first_token_mass).astype(int)]
    now = names[limits.is_sick(after.first_token_mass).astype(int)]
    transitions = {
        group: {
            (str(first), str(second)): int(((was == first) & (now == second) & mask).sum())
            for first in names
            for second in names
        }
        for group, mask in masks.items()
    }
    mass_change = after.first_token_mass - before.first_token_mass
    entropy_change = after.entropy - before.entropy
    changed = np.maximum(np.abs(mass_change), np.abs(entropy_change)) > ROUNDING
    return Drift(
        mass_change=mass_change,
        entropy_change=entropy_change,
        operated=operated_heads,
        watched=watched,
        structural_zeros=structural_zeros(operated_heads, changed) & before.attends[:, None],
        transitions=transitions,
        threshold=threshold,
    )


def structural_zeros(
    operated: Sequence[HeadId], changed: Bool[np.ndarray, "layer head"]
) -> Bool[np.ndarray, "layer head"]:
    """Untouched heads whose attention depends on nothing that was operated on.

    Attention reads the residual stream below its layer, so everything up to and including the
    lowest operated layer keeps its input; within that layer the other heads keep their weights. In
    some families, such as OLMo 2, a norm spans all heads of a layer, so that changing one rescales
    the others: where one of them did change, none of that layer counts as unable to.
    """
    operated_on = mask_of(operated, changed.shape)
    fixed = np.zeros_like(operated_on)
    if operated:
        lowest = min(head.layer for head in operated)
        fixed[:lowest] = True
        fixed[lowest] = not (changed[lowest] & ~operated_on[lowest]).any()
    return np.asarray(fixed & ~operated_on)


def mask_of(heads: Sequence[HeadId], shape: tuple[int, ...]) -> Bool[np.ndarray, "layer head"]:
    """Where these heads are."""
    mask = np.zeros(shape, dtype=bool)
    for head in heads:
        mask[head] = True
    return mask
