"""Curves and bars: one function each, numbers in, a matplotlib figure out."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from headsurgeon.printable import printable
from headsurgeon.report.data import Bar, Curve
from headsurgeon.report.style import (
    FIELD,
    INK,
    MUTED,
    SIZE,
    drawable,
    label_axes,
    look,
    new_figure,
    quiet,
    styled,
)


@styled
def loss_curves(
    curves: Sequence[Curve],
    *,
    level: tuple[str, float] | None = None,
    title: str,
    footnote: str = "",
) -> Figure:
    """Loss by tokens trained, each curve named at its end.

    Args:
        curves: one per arm; at least one, each with at least one point.
        level: label and height of a horizontal line, such as the untouched model's loss.
        title: heading.
        footnote: below the figure.
    """
    figure = new_figure(7.6, 4.2, title, footnote)
    axes = figure.subplots()
    ends = []
    for index, curve in enumerate(curves):
        colour, marker = look(curve.role, index)
        tokens = np.asarray(curve.tokens) / 1000.0
        axes.plot(tokens, curve.loss, color=colour, marker=marker, ms=4, lw=1.8)
        ends.append((float(curve.loss[-1]), curve.label, colour))
    if level is not None:
        axes.axhline(level[1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
        ends.append((level[1], level[0], MUTED))
    quiet(axes, "y")
    label_axes(axes, x="tokens trained (thousands)", y="loss on dev text (nats per token)")
    last = max(max(curve.tokens) for curve in curves) / 1000.0
    axes.set_xlim(0.0, last * 1.01 + 1e-9)
    axes.margins(y=0.12)
    low, high = axes.get_ylim()
    for height, (_, label, colour) in zip(
        spread([end[0] for end in sorted(ends)], low, high), sorted(ends), strict=True
    ):
        axes.text(
            1.015,
            (height - low) / (high - low),
            label,
            transform=axes.transAxes,
            color=colour,
            va="center",
            fontsize=SIZE - 1,
        )
    return figure


@styled
def interval_bars(
    bars: Sequence[Bar],
    *,
    axis: str,
    references: Sequence[tuple[float, str]] = ((0.0, ""),),
    percent: bool = False,
    title: str,
    footnote: str = "",
) -> Figure:
    """Horizontal bars from 0 with their 95 % intervals and their numbers.

    Args:
        bars: top to bottom.
        axis: name and unit of the values.
        references: positions of vertical lines and their names.
        percent: writes 0.25 as 25 %.
        title: heading.
        footnote: below the figure.
    """
    figure = new_figure(7.6, 1.55 + 0.52 * len(bars), title, footnote)
    axes = figure.subplots()
    for row, bar in enumerate(bars):
        colour, _ = look(bar.role, row)
        if bar.defined:
            axes.barh(row, bar.value, height=0.58, color=colour)
            axes.plot([bar.low, bar.high], [row, row], color=INK, lw=1.6, solid_capstyle="butt")
            axes.plot([bar.low, bar.high], [row, row], "|", color=INK, ms=8, mew=1.6)
    quiet(axes, "x")
    _extent(axes, bars, references)
    for row, bar in enumerate(bars):
        axes.annotate(
            _number(bar, percent),
            (1.0, row),
            xytext=(6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=INK,
            fontsize=SIZE - 1,
        )
    for position, name in references:
        axes.axvline(position, color=MUTED, linewidth=1.0, zorder=0.5)
        axes.annotate(
            name,
            (position, 1.0),
            xytext=(0, 3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            color=MUTED,
            fontsize=SIZE - 1.5,
        )
    labels = [drawable(printable(bar.label)) for bar in bars]
    axes.set_yticks(range(len(bars)), labels, parse_math=False)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=SIZE)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    if percent:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    label_axes(axes, x=axis)
    return figure


def spread(heights: Sequence[float], low: float, high: float) -> list[float]:
    """Sorted label heights moved apart until none covers its neighbour, and kept within bounds."""
    step = 0.062 * (high - low)
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + step) if placed else max(height, low))
    over = max(0.0, placed[-1] - high) if placed else 0.0
    for index in range(len(placed) - 1, -1, -1):
        if over <= 0.0:
            break
        placed[index] = min(placed[index], high - step * (len(placed) - 1 - index))
    return placed


def _extent(axes: Axes, bars: Sequence[Bar], references: Sequence[tuple[float, str]]) -> None:
    ends = [position for position, _ in references]
    ends += [end for bar in bars for end in (bar.value, bar.low, bar.high) if np.isfinite(end)]
    low, high = min(ends), max(ends)
    margin = 0.04 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.set_facecolor("white")
    if len(references) > 1:
        axes.axvspan(references[0][0], references[1][0], color=FIELD, zorder=0)


def _number(bar: Bar, percent: bool) -> str:
    if not bar.defined:
        return "undefined"
    if percent:
        text, bounds = f"{100 * bar.value:.0f} %", f"{100 * bar.low:.0f} … {100 * bar.high:.0f}"
    else:
        text, bounds = f"{bar.value:+.4f}", f"{bar.low:+.4f} … {bar.high:+.4f}"
    text, bounds = text.replace("-", "−"), bounds.replace("-", "−")
    return f"{text}  [{bounds}]" if np.isfinite(bar.low) else text
