"""The mass of every head over the steps of a run, with those that collapse or come back."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headsurgeon.diagnosis.crossings import COLLAPSED, Crossing
from headsurgeon.diagnosis.series import HeadSeries
from headsurgeon.heads import HeadId
from headsurgeon.report.style import (
    INK,
    LINE_COLOURS,
    MUTED,
    NULL,
    SIZE,
    label_axes,
    new_figure,
    quiet,
    spread,
    styled,
)

# sick heads are orange, as in the histogram of masses
_HEALTHY, (_CROSSING, _SICK) = "#B7BDC8", LINE_COLOURS[:2]
_NAMED = 14


@styled
def series_figure(
    series: HeadSeries,
    *,
    title: str = "Attention on the first token in the course of training",
    footnote: str = "",
) -> Figure:
    """One line per head; dots where a head collapsed or came back.

    Args:
        series: at least one measurement.
        title: heading.
        footnote: below it; where the collapse was planted it must say so.
    """
    crossing = {each.head for each in series.crossings}
    key = (
        "One line per head; blue: heads that crossed the limit (dot: collapsed; square: came "
        "back); orange: heads sick at every measurement; "
        f"yellow: what untrained heads would show.\n{footnote}"
    )
    figure = new_figure(8.4, 4.8, title, key)
    axes = figure.subplots()
    _null(axes, series)
    places = _places(series)
    for layer, head in np.ndindex(*series.source.null_mass.shape):
        line = series.mass[:, layer, head]
        if not np.isfinite(line).any():
            continue
        colour, width, above = _HEALTHY, 0.7, 1
        if series.is_sick[:, layer, head].all():
            colour, width, above = _SICK, 0.9, 2
        if HeadId(layer, head) in crossing:
            colour, width, above = _CROSSING, 1.6, 3
        axes.plot(places, line, color=colour, lw=width, zorder=above, marker=_marker(series), ms=2)
    for each in series.crossings:
        mass = series.mass[each.measured][each.head]
        shape = "o" if each.kind == COLLAPSED else "s"
        axes.plot([places[each.measured]], [mass], shape, color=_CROSSING, ms=5, zorder=4)
    limits = series.source.thresholds
    for limit, name in ((limits.sink, "sick"), (limits.dead, "dead")):
        axes.axhline(limit, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{name} above {limit:g}",
            (0.0, limit),
            xytext=(3, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=MUTED,
            fontsize=SIZE - 2,
        )
    _names(axes, series, series.crossings)
    _axis(axes, series, places)
    return figure


def _null(axes: Axes, series: HeadSeries) -> None:
    low, high = np.nanmin(series.source.null_mass), np.nanmax(series.source.null_mass)
    middle, half = (low + high) / 2.0, max((high - low) / 2.0, 0.004)
    axes.axhspan(middle - half, middle + half, color=NULL, alpha=0.45, lw=0)


def _names(axes: Axes, series: HeadSeries, crossings: Sequence[Crossing]) -> None:
    """The heads that crossed, at the end of their lines, as many as can be told apart."""
    heads = sorted({each.head for each in crossings})
    ends = sorted((float(series.mass[-1][head]), str(head)) for head in heads[:_NAMED])
    for height, (_, name) in zip(spread([end for end, _ in ends], 0.0, 1.0), ends, strict=True):
        axes.text(
            1.012,
            height,
            name,
            transform=axes.get_yaxis_transform(),
            color=_CROSSING,
            va="center",
            fontsize=SIZE - 2,
        )
    if len(heads) > _NAMED:
        axes.text(
            1.012,
            -0.06,
            f"and {len(heads) - _NAMED} more",
            transform=axes.transAxes,
            color=_CROSSING,
            fontsize=SIZE - 2,
        )


def _axis(axes: Axes, series: HeadSeries, places: Sequence[int]) -> None:
    axes.set_ylim(0.0, 1.0)
    quiet(axes, "y")
    if _numbered(series):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        label_axes(axes, x="step", y="mass on the first token")
        return
    labels = [point.label for point in series.points]
    turned = sum(map(len, labels)) > 60
    axes.set_xticks(
        places, labels, rotation=30 if turned else 0, ha="right" if turned else "center"
    )
    axes.tick_params(axis="x", labelsize=SIZE - 2, labelcolor=INK)
    label_axes(axes, y="mass on the first token")


def _places(series: HeadSeries) -> list[int]:
    return list(series.steps) if _numbered(series) else list(range(len(series.points)))


def _numbered(series: HeadSeries) -> bool:
    """Whether steps are the labels' own numbers, not merely places in a list."""
    return all(str(point.step) in point.label for point in series.points)


def _marker(series: HeadSeries) -> str:
    # a measurement or two make no line
    return "o" if len(series.points) < 12 else ""
