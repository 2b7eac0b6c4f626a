"""The mass of every head over the steps of one training run, and the file that holds it.

The file is one JSON object a line: first what was measured and how, then one line for each
measurement, so that a run can add to it and a reader can follow it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float
from pydantic import ConfigDict, Field, ValidationError, model_validator

from headsurgeon.diagnosis.crossings import Crossing, find_crossings
from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.diagnosis.verdicts import PAPER, Thresholds
from headsurgeon.errors import InputError, SettingsError
from headsurgeon.files import (
    HEADER,
    check_header,
    header,
    parse_json,
    read_text,
    shorten,
    without_nan,
    write_text,
)
from headsurgeon.heads import HeadId
from headsurgeon.records import Record, fault_of
from headsurgeon.results import Array

if TYPE_CHECKING:
    import pandas

KIND = "series"
# digits of a mass, as in the log of a run
_DIGITS = 5
Heads = Annotated[Float[np.ndarray, "layer head"], Array()]


class SeriesSource(Record):
    """What all measurements of a series have in common.

    Attributes:
        model: the model, or what its checkpoints have in common.
        corpus, split, length, count, first_token, seed, corpus_hash: the windows; see `Provenance`.
        documents: how many documents they come from, the unit of every interval.
        dtype: precision of the weights.
        attention: which attention the statistics come from.
        thresholds: the limits of the verdicts.
        patience: measurements in a row that make a crossing.
        null_mass: what an untrained head would show, fraction.
    """

    model_config = ConfigDict(title="series")

    model: str
    corpus: str
    split: str
    length: int
    count: int
    first_token: str
    seed: int
    corpus_hash: str
    documents: int = Field(ge=1)
    dtype: str
    attention: str
    thresholds: Thresholds = PAPER
    patience: int = Field(default=1, ge=1)
    null_mass: Heads

    @classmethod
    def of(cls, diagnosis: Diagnosis, patience: int, model: str | None = None) -> "SeriesSource":
        """From the first diagnosis of a series."""
        stats = diagnosis.stats
        source = stats.provenance
        return cls(
            **{name: getattr(source, name) for name in _FROM_PROVENANCE},
            model=source.model if model is None else model,
            documents=len(set(stats.documents)),
            thresholds=diagnosis.thresholds,
            patience=patience,
            null_mass=stats.null_mass.round(_DIGITS),
        )

    def same_measuring(self, other: "SeriesSource") -> bool:
        """Whether masses of both can stand in one curve; the rule need not be the same."""
        names = ("corpus", "split", "length", "count", "first_token", "seed", "corpus_hash")
        return self.null_mass.shape == other.null_mass.shape and all(
            getattr(self, name) == getattr(other, name) for name in names
        )


_FROM_PROVENANCE = (
    *("corpus", "split", "length", "count", "first_token", "seed", "corpus_hash"),
    *("dtype", "attention"),
)


class SeriesPoint(Record):
    """One measurement of a series.

    Attributes:
        step: optimiser steps taken; where those are unknown, the place in the series from 0.
        label: what was measured, such as `checkpoint-500`.
        mass: `first_token_mass`, fraction; NaN in layers without attention.
        low, high: its 95 % interval over documents.
    """

    model_config = ConfigDict(title="measurement")
    error: ClassVar[type[InputError]] = InputError

    step: int = Field(ge=0, le=2**62)
    label: str
    mass: Heads
    low: Heads
    high: Heads

    @model_validator(mode="after")
    def _of_one_shape(self) -> "SeriesPoint":
        if not self.mass.shape == self.low.shape == self.high.shape:
            raise ValueError("expected mass, low and high of one shape")
        return self

    @classmethod
    def of(cls, diagnosis: Diagnosis, step: int, label: str) -> "SeriesPoint":
        """From the diagnosis at one step."""
        return cls(
            step=step,
            label=label,
            mass=diagnosis.stats.first_token_mass.round(_DIGITS),
            low=diagnosis.mass_low.round(_DIGITS),
            high=diagnosis.mass_high.round(_DIGITS),
        )


@dataclass(frozen=True, eq=False)
class HeadSeries:
    """First-token mass of every head over the steps of one training run.

    Attributes:
        source: what was measured, and the rule.
        points: the measurements, in the order of their steps.
    """

    source: SeriesSource
    points: tuple[SeriesPoint, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """The step of every measurement."""
        return tuple(point.step for point in self.points)

    @cached_property
    def mass(self) -> Float[np.ndarray, "time layer head"]:
        """The mass of every head at every measurement, fraction."""
        return self._stacked("mass")

    @cached_property
    def is_sick(self) -> Bool[np.ndarray, "time layer head"]:
        """Whether the mean mass of a head makes it sick."""
        return self.source.thresholds.is_sick(self.mass)

    @cached_property
    def crossings(self) -> tuple[Crossing, ...]:
        """The heads that collapsed or came back, by the rule of `crossings.py`."""
        low, high = self._stacked("low"), self._stacked("high")
        return find_crossings(self.mass, low, high, self.source.thresholds, self.source.patience)

    def sick(self, index: int) -> tuple[HeadId, ...]:
        """The heads that are sick at one measurement, by their mean."""
        return tuple(HeadId(int(a), int(b)) for a, b in np.argwhere(self.is_sick[index]))

    def to_frame(self) -> "pandas.DataFrame":
        """One row per measurement and head: step, label, name, mass and its interval."""
        import pandas

        rows = [
            {
                "step": point.step,
                "label": point.label,
                "head": str(HeadId(layer, head)),
                "first_token_mass": point.mass[layer, head],
                "low": point.low[layer, head],
                "high": point.high[layer, head],
            }
            for point in self.points
            for layer, head in np.ndindex(*point.mass.shape)
        ]
        return pandas.DataFrame(rows)

    def save(self, path: Path | str) -> None:
        """Writes the series to `path`, atomically, as JSON lines."""
        import json

        entries = [source_entry(self.source), *(point_entry(point) for point in self.points)]
        lines = [json.dumps(without_nan(entry), allow_nan=False) + "\n" for entry in entries]
        write_text(path, "".join(lines))

    @classmethod
    def load(cls, path: Path | str) -> "HeadSeries":
        """Reads what `save` or a monitor wrote; a last line cut short by a kill is left out.

        Raises:
            InputError: no such file, another kind of file, a newer schema, or a damaged line.
        """
        lines = read_text(path).split("\n")
        complete = [line for line in lines if line.endswith("}")]
        if len(complete) < len(lines) - 1 or not complete:
            raise InputError(f"{shorten(str(path), 300)}: expected JSON lines of a {KIND}")
        entries = [_object(line, path, number) for number, line in enumerate(complete, 1)]
        check_header(entries[0], KIND, path)
        try:
            fields = {name: value for name, value in entries[0].items() if name not in HEADER}
            source = SeriesSource.model_validate(fields)
            points = tuple(SeriesPoint.model_validate(entry) for entry in entries[1:])
        except ValidationError as problem:
            reason = "; ".join(fault_of(each) for each in problem.errors(include_url=False)[:3])
            raise InputError(f"{shorten(str(path), 300)} is damaged ({reason})") from problem
        series = cls(source, points)
        series.check(str(path))
        return series

    def check(self, name: str = "series") -> None:
        """Refuses measurements of another shape, or that are not in order.

        Raises:
            InputError: as said.
        """
        if any(point.mass.shape != self.source.null_mass.shape for point in self.points):
            raise InputError(f"{name}: its measurements are of models of different shapes")
        if any(
            later <= earlier for earlier, later in zip(self.steps, self.steps[1:], strict=False)
        ):
            raise InputError(f"{name}: expected steps that rise, got {shorten(str(self.steps))}")

    def _stacked(self, name: str) -> Float[np.ndarray, "time layer head"]:
        parts = [getattr(point, name) for point in self.points]
        return np.stack(parts) if parts else np.empty((0, *self.source.null_mass.shape))


def series_of(
    diagnoses: Sequence[Diagnosis],
    steps: Sequence[int],
    labels: Sequence[str],
    *,
    model: str,
    patience: int = 1,
) -> HeadSeries:
    """The series of checkpoints of one run, each diagnosed on the same windows.

    Raises:
        SettingsError: other windows or thresholds for one of them.
        InputError: models of different shapes, or steps that do not rise.
    """
    sources = [SeriesSource.of(diagnosis, patience, model) for diagnosis in diagnoses]
    for source, label in zip(sources, labels, strict=True):
        if source.null_mass.shape != sources[0].null_mass.shape:
            raise InputError(f"{label} has other layers or heads than {labels[0]}")
        if not source.same_measuring(sources[0]) or source.thresholds != sources[0].thresholds:
            raise SettingsError(
                f"{label} was measured on other windows than {labels[0]} (another tokenizer?), so "
                "their masses are no curve"
            )
    points = zip(diagnoses, steps, labels, strict=True)
    series = HeadSeries(sources[0], tuple(SeriesPoint.of(*point) for point in points))
    series.check()
    return series


def source_entry(source: SeriesSource) -> dict[str, Any]:
    """The first line of a file."""
    return {**header(KIND), **source.model_dump(mode="json")}


def point_entry(point: SeriesPoint) -> dict[str, Any]:
    """The line of one measurement."""
    return point.model_dump(mode="json")


def _object(line: str, path: Path | str, number: int) -> dict[str, Any]:
    try:
        entry = parse_json(line)
        if not isinstance(entry, dict):
            raise ValueError(f"a {type(entry).__name__}")
    except ValueError as error:
        raise InputError(
            f"{shorten(str(path), 300)}, line {number}: no JSON object ({error})"
        ) from error
    return entry
