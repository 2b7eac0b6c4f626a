"""Several runs beside each other: what each of them did to the heads, at the steps all have."""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float

from headsurgeon.errors import InputError
from headsurgeon.evaluation.redistribution import ZONES, GroupChange, Redistribution, Zone
from headsurgeon.records import Record
from headsurgeon.results import Array, Result


class RunZone(Record):
    """The heads of one zone of one run, at each step of a comparison."""

    run: str
    zone: Zone
    groups: tuple[GroupChange, ...]


class PairedRuns(Result):
    """Redistribution of several runs on one model and one text, paired by step.

    Attributes:
        runs: names; the first is what the others are compared with.
        steps: those at which heads were measured in every run.
        zones: for each run, the zones of its own plan; see `groups`.
        agreement: by run and step, Pearson's r with the first run of the signed changes of the
            heads that are untouched and could change in both; NaN where fewer than three are, or
            nothing moved. Near 1 the same heads went the same way, whatever was done to the others.
        larger: by run and step, mean of |change| minus that of the first run over the same heads,
            fraction: above 0 the run moved them more.
    """

    kind: ClassVar[str] = "paired_runs"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    runs: tuple[str, ...]
    steps: tuple[int, ...]
    zones: tuple[RunZone, ...]
    agreement: Annotated[Float[np.ndarray, "run step"], Array()]
    larger: Annotated[Float[np.ndarray, "run step"], Array()]

    def groups(self, run: str, zone: Zone) -> tuple[GroupChange, ...]:
        """What happened to a zone of a run at each step."""
        return next(each.groups for each in self.zones if (each.run, each.zone) == (run, zone))


def paired_runs(runs: Sequence[Redistribution]) -> PairedRuns:
    """Runs such as the surgery, the same heads trained without it, and full fine-tuning.

    Raises:
        InputError: fewer than two; other models or texts; or no step that all of them measured.
    """
    if len(runs) < 2:
        raise InputError(f"expected at least two runs to compare, got {len(runs)}")
    first = runs[0]
    for other in runs[1:]:
        same = (other.model, other.measured_on) == (first.model, first.measured_on)
        if not same or other.mass_before.shape != first.mass_before.shape:
            raise InputError(
                f"{other.run} and {first.run} were measured on different models or texts "
                f"({other.model}, {first.model}); compare runs of one model with the same dev text"
            )
    steps = tuple(sorted(set.intersection(*(set(run.steps) for run in runs))))
    if not steps:
        raise InputError(
            f"{', '.join(run.run for run in runs)}: heads were measured at no step of all of them; "
            "name the same snapshots, or the same `evaluate_every`"
        )
    paired = [run.at(steps) for run in runs]
    agreement, larger = np.full((2, len(runs), len(steps)), np.nan)
    for number, run in enumerate(paired):
        free = _free(paired[0]) & _free(run)
        for place in range(len(steps)):
            ours, first_ones = run.change[place][free], paired[0].change[place][free]
            agreement[number, place] = _correlation(ours, first_ones)
            if len(ours):
                larger[number, place] = (np.abs(ours) - np.abs(first_ones)).mean()
    return PairedRuns(
        runs=tuple(run.run for run in runs),
        steps=steps,
        zones=tuple(
            RunZone(run=run.run, zone=zone, groups=run.zones[zone])
            for run in paired
            for zone in ZONES
        ),
        agreement=agreement,
        larger=larger,
    )


def _free(run: Redistribution) -> np.ndarray:
    return np.asarray(run.attends & ~run.mask("operated") & ~run.fixed)


def _correlation(ours: np.ndarray, others: np.ndarray) -> float:
    if len(ours) < 3 or min(np.ptp(ours), np.ptp(others)) < 1e-9:
        return float("nan")
    return float(np.corrcoef(ours, others)[0, 1])
