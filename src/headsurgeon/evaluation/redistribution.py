"""Where attention went while a run trained: every head against the untouched model, over time."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, computed_field, model_validator

from headsurgeon.errors import InputError
from headsurgeon.evaluation.course import Shape, Trend, correlations, shape_of, trend_of
from headsurgeon.evaluation.head_drift import DRIFT_MASS, ROUNDING, structural_zeros
from headsurgeon.heads import HeadId, check_heads
from headsurgeon.records import Finite, HeadName, Record
from headsurgeon.results import Array, Number, Result

Zone = Literal["operated", "watched", "outside"]
ZONES: tuple[Zone, ...] = get_args(Zone)
UNTOUCHED: tuple[Zone, ...] = ("watched", "outside")
# of a difference of two masses, so that one of exactly the threshold is not above it
_NOISE = 1e-9
Mask = Bool[np.ndarray, "layer head"]


class GroupChange(Record):
    """How the heads of one group differ from the untouched model's, at one moment.

    Attributes:
        heads: how many there are.
        could_change: how many of them are able to; the others keep what they are and what they
            read, so that counting them makes a change look smaller than it is.
        drifted: whose mass changed by more than the threshold. The paper's cascade is this number
            of the watched zone.
        mean, mean_could: of |change of mass| over all, and over those that could change, fraction;
            NaN without any.
        mean_signed: of the change over those that could, fraction.
        worst, worst_change: the head that changed most, and its signed change, fraction; None and
            NaN where none changed.
        newly_sick, left_sick: heads that were healthy and are sick, and the other way round.
    """

    heads: int
    could_change: int
    drifted: int
    mean: Number
    mean_could: Number
    mean_signed: Number
    worst: HeadName | None
    worst_change: Number
    newly_sick: int
    left_sick: int


class ColumnCourse(Record):
    """The heads of one zone with one head index, over the moments after training began.

    Attributes:
        zone: watched or outside.
        head: the head index.
        heads, could_change: as of a group.
        mean: mean |change of mass| over all of them at each moment, fraction, as the paper counts.
        mean_could: over those that could change; NaN where there is none.
        signed: mean change over all of them at each moment, fraction; what correlations are of.
        trend: of `mean`, as the paper counts.
    """

    zone: Zone
    head: int
    heads: int
    could_change: int
    mean: tuple[Number, ...]
    mean_could: tuple[Number, ...]
    signed: tuple[Number, ...]
    trend: Trend


class Redistribution(Result):
    """First-token mass of every head along a run, against the untouched model.

    Attributes:
        run: what the run is called in tables.
        model: id of the model.
        steps: of the moments, ascending; step 0 is the model operated on and not trained.
        epochs: passes over the training text at each moment; empty where that is not known.
        mass_before: first-token mass in the untouched model, fraction; NaN in layers without
            attention, which count nowhere.
        mass: the same at each moment.
        operated, watched: the heads of the plan.
        fixed: untouched heads that cannot change, see `structural_zeros`; none where more than
            heads was trained.
        measured_on: the text that heads were measured on, as its hash and number of windows; two
            runs with the same can be paired.
        sick_mass: above which a head is sick, fraction.
        threshold: |change of mass| above which a head has drifted; the paper's is 0.05.
    """

    kind: ClassVar[str] = "redistribution"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    run: str
    model: str
    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    epochs: tuple[Finite, ...] = ()
    mass_before: Annotated[Float[np.ndarray, "layer head"], Array()]
    mass: Annotated[Float[np.ndarray, "moment layer head"], Array()]
    operated: tuple[HeadName, ...]
    watched: tuple[HeadName, ...] = ()
    fixed: Annotated[Bool[np.ndarray, "layer head"], Array()]
    measured_on: str = ""
    sick_mass: Finite = 0.5
    threshold: Finite = DRIFT_MASS

    @model_validator(mode="after")
    def _of_one_model(self) -> "Redistribution":
        shape = self.mass_before.shape
        if self.mass.shape[1:] != shape or self.fixed.shape != shape:
            raise ValueError("masses and the heads that cannot change are of different shapes")
        if len(self.mass) != len(self.steps) or len(self.epochs) not in (0, len(self.steps)):
            raise ValueError("expected masses, a step and an epoch of each moment")
        if any(later <= early for early, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("expected steps that rise")
        check_heads((*self.operated, *self.watched), *shape)
        known = np.isfinite(self.mass_before)
        odd = np.argwhere((np.isfinite(self.mass) != known).any(axis=0))
        if len(odd):
            raise ValueError(
                f"the mass of {HeadId(*map(int, odd[0]))} is no number at some moments and one at "
                f"others ({len(odd)} such heads); leave those moments out, or measure them again"
            )
        return self

    @property
    def change(self) -> Float[np.ndarray, "moment layer head"]:
        """Mass minus that of the untouched model, fraction."""
        return np.asarray(self.mass - self.mass_before)

    @property
    def attends(self) -> Mask:
        """Heads of layers that have attention."""
        return np.asarray(np.isfinite(self.mass_before))

    def mask(self, zone: Zone) -> Mask:
        """The heads of a zone that have attention; a head both operated and watched is operated."""
        operated, watched = np.zeros((2, *self.mass_before.shape), dtype=bool)
        for heads, marked in ((self.operated, operated), (self.watched, watched)):
            for head in heads:
                marked[head] = True
        zones = {
            "operated": operated,
            "watched": watched & ~operated,
            "outside": ~watched & ~operated,
        }
        return np.asarray(zones[zone] & self.attends)

    def place(self, step: int) -> int:
        """Which moment a step is.

        Raises:
            InputError: nothing was measured there; lists where.
        """
        if step not in self.steps:
            raise InputError(
                f"{self.run}: heads were not measured at step {step}, but at "
                f"{', '.join(map(str, self.steps[:20]))}" + (" …" if len(self.steps) > 20 else "")
            )
        return self.steps.index(step)

    def at(self, steps: Sequence[int]) -> "Redistribution":
        """The same at some of its steps alone, such as those of the paper's epochs."""
        places = [self.place(step) for step in sorted(set(steps))]
        return self.replace(
            steps=tuple(self.steps[place] for place in places),
            epochs=tuple(self.epochs[place] for place in places) if self.epochs else (),
            mass=self.mass[places],
        )

    def group(self, heads: Mask, step: int | None = None) -> GroupChange:
        """What happened to some heads, at a step, by default the last."""
        place = len(self.steps) - 1 if step is None else self.place(step)
        heads = heads & self.attends
        could = heads & ~self.fixed
        change, size = self.change[place], np.abs(self.change[place])
        was, now = self.mass_before > self.sick_mass, self.mass[place] > self.sick_mass
        worst = None
        if size[heads].any():
            layer, head = np.unravel_index(np.where(heads, size, -1.0).argmax(), heads.shape)
            worst = HeadId(int(layer), int(head))
        return GroupChange(
            heads=int(heads.sum()),
            could_change=int(could.sum()),
            drifted=int((size[heads] > self.threshold + _NOISE).sum()),
            mean=_mean(size[heads]),
            mean_could=_mean(size[could]),
            mean_signed=_mean(change[could]),
            worst=worst,
            worst_change=float(change[worst]) if worst is not None else float("nan"),
            newly_sick=int((heads & ~was & now).sum()),
            left_sick=int((heads & was & ~now).sum()),
        )

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def zones(self) -> dict[Zone, tuple[GroupChange, ...]]:
        """By zone, what happened to its heads at each moment."""
        masks = {zone: self.mask(zone) for zone in ZONES}
        return {
            zone: tuple(self.group(mask, step) for step in self.steps)
            for zone, mask in masks.items()
        }

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def layers_above(self) -> dict[int, GroupChange]:
        """Untouched heads by layers above the lowest operated layer, at the last moment."""
        if not self.operated:
            return {}
        lowest = min(head.layer for head in self.operated)
        untouched = ~self.mask("operated") & self.attends
        layer = np.indices(untouched.shape)[0]
        return {
            distance: self.group(untouched & (layer - lowest == distance))
            for distance in sorted({int(n) for n in (layer - lowest)[untouched]})
        }

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def heads_aside(self) -> dict[int, GroupChange]:
        """Untouched heads by how far their index is from the nearest operated one's; at the end.

        Operated on in any layer: 0 is inside the band, where that is one run of indices.
        """
        if not self.operated:
            return {}
        untouched = ~self.mask("operated") & self.attends
        index = np.arange(untouched.shape[1])
        columns = sorted({head.head for head in self.operated})
        nearest = np.abs(index[:, None] - np.array(columns)).min(axis=1)
        distances = np.broadcast_to(nearest, untouched.shape)
        return {
            distance: self.group(untouched & (distances == distance))
            for distance in sorted({int(n) for n in distances[untouched]})
        }

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def columns(self) -> tuple[ColumnCourse, ...]:
        """Watched heads, then those outside, by head index."""
        return tuple(course for zone in UNTOUCHED for course in self._columns(zone))

    def _columns(self, zone: Zone) -> Iterator[ColumnCourse]:
        mask, change = self.mask(zone), self.change[self._trained]
        for head in map(int, np.flatnonzero(mask.any(axis=0))):
            layers = np.flatnonzero(mask[:, head])
            could = np.flatnonzero(mask[:, head] & ~self.fixed[:, head])
            of_all = np.abs(change[:, layers, head]).mean(axis=1)
            free = np.abs(change[:, could, head])
            of_free = free.mean(axis=1) if len(could) else np.full(len(free), np.nan)
            yield ColumnCourse(
                zone=zone,
                head=head,
                heads=len(layers),
                could_change=len(could),
                mean=tuple(of_all.tolist()),
                mean_could=tuple(of_free.tolist()),
                signed=tuple(change[:, layers, head].mean(axis=1).tolist()),
                trend=trend_of(of_all) if len(could) else "cannot change",
            )

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape over time of every untouched head, by its name."""
        change = self.change[self._trained]
        untouched = np.argwhere(~self.mask("operated") & self.attends)
        return {
            str(HeadId(int(layer), int(head))): "cannot change"
            if self.fixed[layer, head]
            else shape_of(change[:, layer, head])
            for layer, head in untouched
        }

    def correlations(self, zone: Zone) -> tuple[tuple[int, ...], Float[np.ndarray, "head head"]]:
        """The head indices of a zone, and Pearson's r of their columns' mean changes over time."""
        courses = [course for course in self.columns if course.zone == zone]
        signed = np.array([course.signed for course in courses]).reshape(len(courses), -1)
        return tuple(course.head for course in courses), correlations(signed)

    @property
    def _trained(self) -> list[int]:
        """The moments after training began: shapes and trends are of what training does."""
        return [place for place, step in enumerate(self.steps) if step > 0]


def redistribution_from(
    before: Float[np.ndarray, "layer head"],
    mass: Float[np.ndarray, "moment layer head"],
    steps: Sequence[int],
    operated: Sequence[HeadId],
    watched: Sequence[HeadId] = (),
    *,
    run: str = "run",
    model: str = "",
    epochs: Sequence[float] = (),
    confined: bool = True,
    rounding: float = ROUNDING,
    measured_on: str = "",
    sick_mass: float = 0.5,
) -> Redistribution:
    """A redistribution of masses measured by anything at all.

    Args:
        before: first-token mass in the untouched model, fraction.
        mass: the same at each step.
        steps: of the moments, ascending.
        operated, watched: the heads of the plan.
        run, model, epochs, measured_on, sick_mass: as of a `Redistribution`.
        confined: whether nothing but the operated heads was trained.
        rounding: what a head that did not change may read as changed, fraction.

    Raises:
        InputError: shapes that differ, steps that do not rise, heads the model does not have.
    """
    mass = np.asarray(mass, dtype=np.float64)
    fixed = np.zeros(before.shape, dtype=bool)
    if confined and mass.shape[1:] == before.shape:
        with np.errstate(invalid="ignore"):
            changed = (np.abs(mass - before) > rounding).any(axis=0)
        fixed = structural_zeros(tuple(operated), changed) & np.isfinite(before)
    return Redistribution(
        run=run,
        model=model,
        steps=tuple(steps),
        epochs=tuple(epochs),
        mass_before=before,
        mass=mass,
        operated=tuple(operated),
        watched=tuple(watched),
        fixed=fixed,
        measured_on=measured_on,
        sick_mass=sick_mass,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
