"""The drawings of a page, as inline SVG; each with its numbers in a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from headsurgeon.diagnosis.verdicts import Thresholds
from headsurgeon.report.data import Bar, Chart, Curve, Table
from headsurgeon.report.mass_bins import mass_bins
from headsurgeon.report.svg_plane import WIDTH, Plane, text, ticks

# lines that have a colour of their own; more are drawn thin and grey
COLOURS = 6
_BINS = 20
_SWEEP = (0.4, 0.5, 0.6)
_ROWS = 12
# that fit into the width of a chart, side by side
_LETTERS = 58


@dataclass(frozen=True)
class Level:
    """A horizontal line of a plot, and what it is."""

    label: str
    value: float


def loss_chart(title: str, curves: Sequence[Curve], levels: Sequence[Level], caption: str) -> Chart:
    """Losses by tokens trained; curves of one role, such as the seeds of an arm, share a colour."""
    roles = list(dict.fromkeys(curve.role for curve in curves))
    style = {
        role: f"c{place}" if place < COLOURS else "c6 thin" for place, role in enumerate(roles)
    }
    values = [loss for curve in curves for loss in curve.loss] + [each.value for each in levels]
    last = [curve.loss[-1] for curve in curves] + [each.value for each in levels]
    low, high = min(values), max(values)
    # heads that have just been reinitialised may lie far above all that is to be compared
    high = min(high, max(last) + 1.5 * ((max(last) - low) or 0.1))
    pad = 0.04 * ((high - low) or 0.1)
    most = max(curve.tokens[-1] for curve in curves) or 1
    plane = Plane((0.0, low - pad), (float(most), high + pad), 270, right=112, top=20)
    names = [(each.value, each.label, "") for each in levels if math.isfinite(each.value)]
    for role in roles[:COLOURS]:
        ends = [curve.loss[-1] for curve in curves if curve.role == role]
        names.append((float(np.mean(ends)), role, style[role].replace("c", "f")))
    svg = plane.drawn(
        f"{title}: {caption}",
        plane.axes("tokens trained", "nats per token"),
        *(plane.across(each.value, "c6 dash") for each in levels if math.isfinite(each.value)),
        *(
            plane.line(zip(curve.tokens, curve.loss, strict=True), style[curve.role])
            for curve in reversed(curves)
        ),
        plane.ends(names),
    )
    return Chart(title, svg, caption, _losses(curves, levels))


def mass_chart(
    title: str,
    models: Mapping[str, Float[np.ndarray, " head"]],
    null: Float[np.ndarray, " untrained"],
    limits: Thresholds,
    caption: str,
) -> Chart:
    """How many heads have how much mass, before as bars and after as lines, with the null."""
    edges = np.linspace(0.0, 1.0, _BINS + 1)
    counts = {name: mass_bins(values, _BINS) for name, values in models.items()}
    most = max(int(count.max()) for count in counts.values())
    plane = Plane((0.0, 0.0), (1.0, 1.05 * most), 250, right=16, top=32)
    first, *others = counts
    width = (WIDTH - plane.left - plane.right) / _BINS
    bars = "".join(
        f'<path class="f6 faint" d="M{plane.x(edge) + 0.5:.1f} {plane.y(0):.1f}V{plane.y(n):.1f}'
        f'h{width - 1:.1f}V{plane.y(0):.1f}z"/>'
        for edge, n in zip(edges[:-1], counts[first].tolist(), strict=True)
        if n
    )
    lines = []
    for place, name in enumerate(others[:COLOURS]):
        steps = [(edges[0], 0.0)]
        for index, n in enumerate(counts[name].tolist()):
            steps += [(edges[index], n), (edges[index + 1], n)]
        lines.append(plane.line(steps, f"c{place}"))
    expected = null[np.isfinite(null)]
    if expected.size:
        left, right = plane.x(float(expected.min())), plane.x(float(expected.max()))
        lines.append(
            f'<path class="f4 faint" d="M{left:.1f} {plane.top}H{max(right, left + 2):.1f}'
            f'V{plane.height - plane.bottom}H{left:.1f}z"/>'
        )
        lines.append(text(left + 3, plane.top + 9, "null", "f4"))
    key = [text(plane.left, 12, f"bars: {first}", "name")]
    offset = plane.left + 7.0 * len(f"bars: {first}") + 8
    for place, name in enumerate(others[:COLOURS]):
        key.append(text(offset, 12, name, f"f{place}"))
        offset += 6.6 * len(name) + 10
    for limit in sorted({limits.sink, limits.dead}):
        lines.append(plane.upright(limit, "limit"))
    svg = plane.drawn(
        f"{title}: {caption}",
        plane.axes("mass on the first token", ""),
        bars,
        *lines,
        *key,
    )
    known = {name: values[np.isfinite(values)] for name, values in models.items()}
    return Chart(title, svg, caption, _sweep({**known, "null": expected}, limits))


def slope_chart(
    title: str,
    models: Mapping[str, Float[np.ndarray, " head"]],
    slopes: Float[np.ndarray, " head"],
    limits: Thresholds,
    caption: str,
) -> Chart:
    """Mass against the ALiBi slope, which spans powers of two."""
    used = slopes > 0
    powers = np.log2(slopes[used])
    low, high = math.floor(powers.min()), math.ceil(powers.max())
    plane = Plane((low - 0.3, -0.02), (high + 0.3, 1.02), 250, right=16, top=32)
    stride = max(1, (high - low) // 5)
    named = [(float(power), f"{2.0**power:.2g}") for power in range(low, high + 1, stride)]
    parts, key, offset = [], [], float(plane.left)
    for place, (name, values) in enumerate(list(models.items())[: COLOURS + 1]):
        style = "c6 faint" if place == 0 else f"c{place - 1}"
        # dots of one slope beside each other
        aside = 0.08 * (place - (len(models) - 1) / 2)
        parts.append(plane.dots(zip(powers + aside, values[used], strict=True), style))
        key.append(text(offset, 12, name, f"f{6 if place == 0 else place - 1}"))
        offset += 6.6 * len(name) + 12
    svg = plane.drawn(
        f"{title}: {caption}",
        plane.axes("slope (steep → right)", "", named),
        plane.across(limits.sink, "limit"),
        *parts,
        *key,
    )
    return Chart(title, svg, caption)


def interval_chart(
    title: str,
    bars: Sequence[Bar],
    caption: str,
    *,
    references: Sequence[tuple[float, str]] = ((0.0, "no difference"),),
    percent: bool = False,
    table: Table | None = None,
) -> Chart:
    """Values with their intervals, a line each: a forest plot."""
    numbers = [n for bar in bars for n in (bar.value, bar.low, bar.high) if math.isfinite(n)]
    numbers += [place for place, _ in references]
    low, high = min(numbers), max(numbers)
    pad = 0.06 * ((high - low) or 1.0)
    # a name and its figures share a line where all of them fit
    below = 14 if any(len(bar.label + _said(bar, percent)) > _LETTERS for bar in bars) else 0
    row, top = 36 + below, 24
    plane = Plane(
        (low - pad, 0.0), (high + pad, 1.0), top + row * len(bars) + 30, left=10, right=10, top=top
    )
    named = ticks(plane.low[0], plane.high[0], 5)
    if percent:
        named = [(value, f"{100 * value:.0f} %".replace("-", "−")) for value, _ in named]
    parts = [plane.axes("", "", named, ())]
    for place, said in references:
        at = plane.x(place)
        parts.append(plane.upright(place, "axis dash"))
        side = "mid" if plane.left + 40 < at < WIDTH - 50 else ("end" if at > WIDTH / 2 else "")
        parts.append(text(at, 12, said, side))
    for index, bar in enumerate(bars):
        at = top + row * index
        parts.append(text(plane.left, at + 12, bar.label, "name"))
        parts.append(text(WIDTH - plane.right, at + 12 + below, _said(bar, percent), "end name"))
        if not bar.defined:
            continue
        colour = bar.role if bar.role in ("c0", "c1", "c2", "c6") else "c6"
        if math.isfinite(bar.low) and math.isfinite(bar.high):
            left, right = plane.x(bar.low), plane.x(bar.high)
            parts.append(
                f'<path class="line {colour}" d="M{left:.1f} {at + 23 + below}H{right:.1f}"/>'
            )
        parts.append(
            f'<path class="dots {colour}" d="M{plane.x(bar.value):.1f} {at + 23 + below}h0"/>'
        )
    return Chart(title, plane.drawn(f"{title}: {caption}", *parts), caption, table)


def sorted_chart(title: str, differences: Float[np.ndarray, " document"], caption: str) -> Chart:
    """One difference for each document, from the least to the most."""
    ordered = np.sort(differences)
    low, high = min(0.0, float(ordered[0])), max(0.0, float(ordered[-1]))
    pad = 0.05 * ((high - low) or 0.01)
    plane = Plane((-0.5, low - pad), (len(ordered) - 0.5, high + pad), 190, left=52, top=18)
    better = [(float(i), float(v)) for i, v in enumerate(ordered) if v < 0]
    worse = [(float(i), float(v)) for i, v in enumerate(ordered) if v >= 0]
    svg = plane.drawn(
        f"{title}: {caption}",
        plane.axes(f"{len(ordered)} documents", "nats per token", ()),
        plane.across(0.0, "axis"),
        plane.dots(better, "c0"),
        plane.dots(worse, "c1"),
    )
    return Chart(title, svg, caption)


def lines_chart(
    title: str,
    steps: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    axis: str,
    caption: str,
    table: Table | None = None,
) -> Chart:
    """Lines over optimiser steps, from 0 up, each named at its end."""
    most = max((v for line in lines.values() for v in line if math.isfinite(v)), default=0.0)
    plane = Plane(
        (float(steps[0]), 0.0), (float(steps[-1]), 1.06 * (most or 1.0)), 240, right=84, top=20
    )
    parts, names = [], []
    for place, (name, line) in enumerate(lines.items()):
        colour = f"{min(place, COLOURS)}"
        parts.append(plane.line(zip(steps, line, strict=True), f"c{colour}"))
        if math.isfinite(line[-1]):
            names.append((line[-1], name, f"f{colour}"))
    svg = plane.drawn(
        f"{title}: {caption}", plane.axes("optimiser step", axis), *parts, plane.ends(names)
    )
    return Chart(title, svg, caption, table)


def _said(bar: Bar, percent: bool) -> str:
    if not bar.defined:
        return "undefined"
    factor, form, unit = (100.0, ".0f", " %") if percent else (1.0, "+.4f", "")
    said = f"{factor * bar.value:{form}}{unit}"
    if math.isfinite(bar.low) and math.isfinite(bar.high):
        said += f" [{factor * bar.low:{form}}, {factor * bar.high:{form}}]"
    return said.replace("-", "−")


def _losses(curves: Sequence[Curve], levels: Sequence[Level]) -> Table:
    """At up to a dozen moments that some curve has."""
    moments = sorted({tokens for curve in curves for tokens in curve.tokens})
    places = sorted({round(p) for p in np.linspace(0, len(moments) - 1, min(len(moments), _ROWS))})
    found = [dict(zip(curve.tokens, curve.loss, strict=True)) for curve in curves]
    rows = [
        (
            f"{moments[place]:,}",
            *(f"{each[moments[place]]:.4f}" if moments[place] in each else "" for each in found),
        )
        for place in places
    ]
    note = ", ".join(f"{each.label} {each.value:.4f}" for each in levels)
    return Table(
        "curves",
        "Loss on dev text (nats per token)",
        ("tokens", *(curve.label for curve in curves)),
        tuple(rows),
        note,
    )


def _sweep(models: Mapping[str, Float[np.ndarray, " _"]], limits: Thresholds) -> Table:
    """How many heads would be sick at other limits."""
    chosen = sorted({*_SWEEP, limits.sink, limits.dead})
    rows = tuple(
        (name, str(len(values)), *(str(int((values > limit).sum())) for limit in chosen))
        for name, values in models.items()
    )
    columns = ("heads of", "heads", *(f"mass > {limit:g}" for limit in chosen))
    note = f"A head is sick above {limits.sink:g}, and dead above {limits.dead:g}."
    return Table("sweep", "How many heads are sick at other thresholds", columns, rows, note)
