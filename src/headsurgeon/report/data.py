"""What figures and pages are made of: frozen data, numpy only."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped
from markupsafe import Markup

from headsurgeon.diagnosis.verdicts import PAPER, Thresholds, verdicts_known
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import NO_ATTENTION, HeadId
from headsurgeon.report.head_moments import HeadMoments

Align = Literal["left", "right"]
_LETTERS = {"healthy": "", "sink": "S", "dead": "D", "low-entropy": "E", NO_ATTENTION: ""}


@dataclass(frozen=True, eq=False)
class HeadView:
    """What a head map shows of every head.

    Attributes:
        title: heading of the panel.
        mass: `first_token_mass`, fraction.
        verdicts: `Verdict` strings, or `NO_ATTENTION`, where the mass is NaN.
        borderline: heads whose interval reaches into another verdict.
        slopes: effective ALiBi slope per head; 0 where there is no position bias.
        null_mass: what an untrained head would show, fraction; NaN where that is not known.
        thresholds: the limits of the verdicts.
    """

    title: str
    mass: Float[np.ndarray, "layer head"]
    verdicts: Shaped[np.ndarray, "layer head"]
    borderline: Bool[np.ndarray, "layer head"]
    slopes: Float[np.ndarray, "layer head"]
    null_mass: Float[np.ndarray, "layer head"]
    thresholds: Thresholds = PAPER

    @classmethod
    def of(
        cls,
        title: str,
        stats: HeadStats,
        verdicts: Shaped[np.ndarray, "layer head"],
        borderline: Bool[np.ndarray, "layer head"],
        thresholds: Thresholds = PAPER,
    ) -> "HeadView":
        """From statistics and the verdicts they were given."""
        return cls(
            title,
            stats.first_token_mass,
            verdicts,
            borderline,
            stats.slopes,
            stats.null_mass,
            thresholds,
        )

    @classmethod
    def at(cls, model: HeadMoments, place: int) -> "HeadView":
        """One moment of a model."""
        mass = model.values["mass"][place]
        entropy = model.values["entropy"][place] if "entropy" in model.values else None
        return cls(
            model.moments[place].label,
            mass,
            verdicts_known(mass, entropy, model.thresholds),
            np.zeros(mass.shape, dtype=bool),
            model.fixed.get("slope", np.zeros(mass.shape)),
            model.fixed.get("null", np.full(mass.shape, np.nan)),
            model.thresholds,
        )

    def mark(self, head: HeadId | tuple[int, int]) -> str:
        """The letter of a sick or low-entropy head's verdict, and `?` where it is borderline."""
        return _LETTERS[str(self.verdicts[head])] + ("?" if self.borderline[head] else "")


@dataclass(frozen=True)
class Curve:
    """One line of a plot: loss (nats per token) by tokens trained; `role` decides its colour."""

    label: str
    role: str
    tokens: tuple[int, ...]
    loss: tuple[float, ...]


@dataclass(frozen=True)
class Bar:
    """A value with its interval; NaN bounds draw no whisker, a NaN value draws "undefined"."""

    label: str
    role: str
    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether there is a value to draw."""
        return not math.isnan(self.value)


@dataclass(frozen=True)
class Table:
    """A table of finished texts, for the terminal and for the page alike.

    Attributes:
        key: short name, unique within a result.
        title: heading.
        columns: column headings.
        rows: cells, as they are to be read.
        note: a remark below the table.
        align: `left` or `right` per column; by default the first is left, the others right.
        prose: whether cells are texts of many lines, which are shown as they are broken.
        wraps: whether long cells may be broken.
    """

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    align: tuple[Align, ...] = ()
    prose: bool = False
    wraps: bool = False

    @property
    def alignment(self) -> tuple[Align, ...]:
        """One entry per column."""
        rest: list[Align] = ["right"] * (len(self.columns) - 1)
        return self.align or ("left", *rest)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: one mapping per row, by column heading."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "note": self.note}


@dataclass(frozen=True)
class Chart:
    """A drawing for a page.

    Attributes:
        title: heading.
        svg: the drawing, safe to be put into a page as it is.
        caption: what it shows; it also serves readers who cannot see it.
        table: the same as numbers, where no other table of the page has them.
    """

    title: str
    svg: Markup
    caption: str
    table: Table | None = None


@dataclass(frozen=True)
class Section:
    """One part of a page: text, charts, then tables; `folded` starts closed."""

    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class KeyFigure:
    """A number to be read at first sight, what it is of, and a remark such as its interval."""

    value: str
    label: str
    note: str = ""


@dataclass(frozen=True, eq=False)
class Page:
    """A whole page.

    Attributes:
        title: heading.
        lead: what was found, one paragraph each.
        sections: the rest.
        notice: what every reader must know first, such as that the collapse was planted.
        figures: the numbers below the heading.
        heads: models whose heads are shown on the map, the first one first.
        facts: name and value pairs for the footer: versions, seeds, hashes.
        command: what repeats it, as typed; empty where that is not known.
    """

    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    notice: str = ""
    figures: tuple[KeyFigure, ...] = ()
    heads: tuple[HeadMoments, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
