"""Curves of one run: the drift of columns of heads, and losses with the best step marked."""

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headsurgeon.evaluation.loss_curve import LossCurve
from headsurgeon.evaluation.redistribution import Redistribution, Zone
from headsurgeon.evaluation.sweep import REPORTED_SPLITS, Sweep
from headsurgeon.paper.figure_data import READ_OFF
from headsurgeon.printable import printable
from headsurgeon.report.style import (
    FIELD,
    INK,
    LINE_COLOURS,
    MUTED,
    SIZE,
    drawable,
    label_axes,
    new_figure,
    quiet,
    spread,
    styled,
)

_LINES = tuple(zip(LINE_COLOURS, "os^vPXD", strict=True))
_LIMIT = "#B00020"


@styled
def column_lines(
    found: Redistribution,
    zone: Zone = "watched",
    *,
    published: Mapping[int, Sequence[tuple[float, float]]] | None = None,
    title: str = "",
    footnote: str = "",
) -> Figure:
    """Mean |change of mass| of a zone's heads by head index over time, as the paper's figure S2.

    Over all heads of a column, as the paper counts; how many of them can change stands beside it.

    Args:
        found: with at least one trained moment, and a head in the zone.
        zone: watched or outside.
        published: steps and values of the paper by head index, drawn dotted in the same colours.
        title, footnote: of the figure; where the collapse was planted the footnote must say so.
    """
    figure = new_figure(
        7.6, 4.4, title or f"Drift of the {_named(zone)} in {found.run}, by column", footnote
    )
    axes = figure.subplots()
    steps = [step for step in found.steps if step > 0]
    courses = [course for course in found.columns if course.zone == zone]
    ends = [(found.threshold, "drifted", _LIMIT)]
    for place, course in enumerate(courses):
        colour, marker = _LINES[place % len(_LINES)]
        line = "-" if place < len(_LINES) else (0, (3, 1.5))
        axes.plot(
            steps, course.mean, color=colour, marker=marker, ms=4, lw=1.8, ls=line, clip_on=False
        )
        count = f"{course.could_change} of {course.heads} can"
        if course.could_change == course.heads:
            count = f"n = {course.heads}"
        ends.append((float(course.mean[-1]), f"H{course.head} ({count}): {course.trend}", colour))
        for at, points in (published or {}).items():
            if at == course.head:
                axes.plot(*zip(*points, strict=True), ":", color=colour, lw=1.2, marker=marker)
    axes.axhline(found.threshold, color=_LIMIT, lw=1.2, ls=(0, (4, 3)))
    heights = [value for course in courses for value in course.mean]
    heights += [value for points in (published or {}).values() for _, value in points]
    axes.set_ylim(0.0, 1.12 * max(found.threshold, *heights))
    _step_axis(axes, steps)
    label_axes(axes, x="optimiser step", y="mean |change of mass|")
    _name_ends(axes, ends)
    return figure


@styled
def sweep_figure(
    sweep: Sweep,
    *,
    published: Float[np.ndarray, " step"] | None = None,
    title: str = "",
    footnote: str = "",
) -> Figure:
    """Losses by optimiser step, as the paper's figure 5, with perplexity on the right.

    A square where the operated model begins, a dot at the minimum on dev text with its interval,
    dashed lines for the untouched model, what comes after the minimum shaded. Of the probes those
    that are no dev text are drawn.

    Args:
        sweep: the losses.
        published: the paper's losses after steps 0, 1, 2, …, nats per token; drawn dotted.
        title, footnote: of the figure; where the collapse was planted the footnote must say so.
    """
    name = title or f"Loss of {sweep.run} by step"
    figure = new_figure(8.0, 5.0, name, f"{_key(sweep)}\n{footnote}".strip())
    axes = figure.subplots()
    others = [curve for curve in sweep.probes if curve.split in REPORTED_SPLITS]
    colours = [colour for colour, _ in _LINES]
    curves = list(zip((sweep.dev, *others), cycle(colours)))
    ends = []
    for curve, colour in curves:
        axes.plot(sweep.steps, curve.loss, color=colour, lw=1.8, zorder=2)
        ends.append((float(curve.loss[-1]), _label(curve), colour))
        if not math.isnan(curve.untouched):
            axes.axhline(curve.untouched, color=colour, lw=1.2, ls=(0, (4, 3)), alpha=0.8, zorder=1)
            ends.append((curve.untouched, f"untouched: {curve.untouched:.3f}", colour))
        if sweep.steps[0] == 0:
            axes.plot(0, curve.loss[0], "s", color=colour, ms=7, clip_on=False, zorder=4)
    if published is not None:
        within = published[: sweep.steps[-1] + 1]
        axes.plot(within, ":", color=MUTED, lw=1.4, zorder=1)
        ends.append((float(within[np.isfinite(within)][-1]), f"{READ_OFF} 5", MUTED))
    _step_axis(axes, sweep.steps)
    low, high = _room(axes)
    best = sweep.minimum
    axes.axvspan(best.step, max(sweep.steps[-1], best.step + 1e-9), color=FIELD, zorder=0)
    height = low + 0.05 * (high - low)
    if not math.isnan(best.low):
        axes.plot([best.low, best.high], [height] * 2, color=INK, lw=1.4, marker="|", ms=7)
    axes.plot([best.step] * 2, [height, best.loss], color=INK, lw=0.8, ls=":")
    axes.plot(best.step, best.loss, "o", color=_LINES[0][0], mec=INK, ms=8, zorder=5, clip_on=False)
    onset = sweep.onset.step
    if onset is not None:
        axes.axvline(onset, color=_LIMIT, lw=1.0, ls=(0, (2, 2)))
    left = best.step < 0.5 * sweep.steps[-1]
    axes.annotate(
        _best(sweep),
        (best.step, height),
        xytext=(8 if left else -8, 4),
        textcoords="offset points",
        ha="left" if left else "right",
        va="bottom",
        color=INK,
        fontsize=SIZE - 2,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
    )
    label_axes(axes, x="optimiser step", y="loss (nats per token)")
    _name_ends(axes, ends, away=0.09)
    _perplexity(axes)
    return figure


def _key(sweep: Sweep) -> str:
    """What the marks of a sweep mean, as far as they are there."""
    parts = ["Dot: minimum on dev text", "Dashed: the untouched model", "Shaded: after the minimum"]
    if sweep.steps[0] == 0:
        parts.insert(0, "Square: operated on, not yet trained")
    if not math.isnan(sweep.minimum.low):
        parts[-3] += "; the bar below it is where it lies in 95 % of draws of other documents"
    if sweep.onset.step is not None:
        parts.append("Red: from here on worse for good")
    return ". ".join(parts) + "."


def _best(sweep: Sweep) -> str:
    best = sweep.minimum
    text = f"minimum {best.loss:.3f} at step {best.step}"
    if not math.isnan(best.low):
        text += f" [{best.low:.0f}, {best.high:.0f}]"
    if not math.isnan(best.change.value):
        text += f"\n{best.change.value:+.3f} against untouched".replace("-", "−")
    if sweep.onset.step is not None:
        text += f"\nworse for good from step {sweep.onset.step}"
    return text


def _label(curve: LossCurve) -> str:
    split = f" ({curve.split})" if curve.split == "test" else ""
    return f"{curve.name}{split}"


def _named(zone: Zone) -> str:
    names = {"watched": "watched heads", "outside": "heads outside", "operated": "operated heads"}
    return names[zone]


def _step_axis(axes: Axes, steps: list[int] | tuple[int, ...]) -> None:
    quiet(axes, "y")
    first, last = steps[0], steps[-1]
    axes.set_xlim(first, last if last > first else first + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))


def _room(axes: Axes) -> tuple[float, float]:
    """Room below the curves for the interval of the minimum and its note."""
    low, high = axes.get_ylim()
    low, high = low - 0.34 * (high - low), high + 0.03 * (high - low)
    axes.set_ylim(low, high)
    return low, high


def _name_ends(axes: Axes, ends: list[tuple[float, str, str]], away: float = 0.0) -> None:
    low, high = axes.get_ylim()
    ends = sorted(ends)
    heights = spread([end[0] for end in ends], low, high)
    for height, (_, label, colour) in zip(heights, ends, strict=True):
        axes.text(
            1.015 + away,
            (height - low) / (high - low),
            drawable(printable(label)),
            transform=axes.transAxes,
            color=colour,
            va="center",
            fontsize=SIZE - 2,
        )


def _perplexity(axes: Axes) -> None:
    """The same axis in perplexity, exp(loss)."""
    right = axes.secondary_yaxis("right", functions=(_exp, _log))
    right.set_ylabel("perplexity", fontsize=SIZE, color=INK, labelpad=2)
    right.tick_params(length=0, labelsize=SIZE - 1, colors=MUTED)
    right.spines["right"].set_visible(False)
    right.yaxis.set_major_locator(MaxNLocator(nbins=6))


def _exp(values: Any) -> Any:
    return np.exp(np.minimum(values, 700.0))


def _log(values: Any) -> Any:
    # matplotlib asks beyond the axis, too
    return np.log(np.maximum(values, 1e-12))
