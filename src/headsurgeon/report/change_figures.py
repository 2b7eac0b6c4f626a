"""Maps of how far each head's first-token mass is from the untouched model's."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from headsurgeon.evaluation.redistribution import GroupChange, Redistribution
from headsurgeon.report.style import INK, MUTED, SIZE, new_figure, styled

# blue and red differ for every common colour deficiency, and white is no change
COLOURS = matplotlib.colormaps["RdBu_r"]
_NO_CHANGE_POSSIBLE = "#f0f0f0"
# as the paper's maps: fractions of attention
CLIP, NUMBERS_ABOVE, CLIP_WATCHED = 0.4, 0.15, 0.3


@dataclass(frozen=True, eq=False)
class ChangePanel:
    """One map of changes.

    Attributes:
        title: its heading, perhaps of several lines.
        change: signed change of mass, fraction; NaN in layers without attention.
        zone: heads that are operated on or watched, which a line goes around.
        operated: heads that are operated on.
    """

    title: str
    change: Float[np.ndarray, "layer head"]
    zone: Bool[np.ndarray, "layer head"]
    operated: Bool[np.ndarray, "layer head"]

    @classmethod
    def of(
        cls, found: Redistribution, step: int | None = None, title: str = "", remark: str = ""
    ) -> "ChangePanel":
        """A redistribution at a step, by default the last, with the counts of its zones.

        Args:
            found, step, title: what, when, and the heading; by default the run and the step.
            remark: what else to say above the map, such as a loss.
        """
        place = len(found.steps) - 1 if step is None else found.place(step)
        operated = found.mask("operated")
        lines = [title or f"{found.run}, step {found.steps[place]}", *([remark] if remark else [])]
        for zone in ("outside", "watched"):
            group = found.zones[zone][place]
            lines += [f"{zone}: {_counted(group)}"] if group.heads else []
        return cls(
            "\n".join(lines), found.change[place], operated | found.mask("watched"), operated
        )


@styled
def change_map(
    panels: Sequence[ChangePanel],
    published: Sequence[ChangePanel] = (),
    *,
    title: str = "Where attention went: change of mass on the first token",
    footnote: str = "",
) -> Figure:
    """Draws one panel per model, all on one scale of ±0.4, as the paper's figures 3 and 4.

    Numbers stand in untouched heads that changed by more than 0.15. A line goes around the heads
    that were operated on or watched.

    Args:
        panels: one to three, of models of one shape.
        published: what to lay under them, whose titles say where it is from.
        title: heading of the figure.
        footnote: below it; where the collapse was planted it must say so.
    """
    layers, heads = panels[0].change.shape
    cell = float(np.clip(5.2 / heads, 0.27, 0.5))
    columns = max(len(panels), len(published))
    width = max(6.6, columns * (max(heads * cell, 3.1) + 0.55) + 1.2)
    rows = [panels, published] if published else [panels]
    key = (
        f"Numbers: untouched heads that changed by more than {NUMBERS_ABOVE:g}. The line goes "
        "around the heads that were operated on or watched; colours end at "
        f"±{CLIP:g}."
    )
    height = (layers * cell + 1.1) * len(rows) + 1.2
    figure = new_figure(width, height, title, f"{key}\n{footnote}".strip())
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes, panel in zip(line, row, strict=False):
            _changes(axes, panel, cell)
        line[0].set_ylabel("layer", fontsize=SIZE, color=INK)
        for axes in line[len(row) :]:
            axes.set_axis_off()
    _scale(figure, grid.ravel().tolist(), CLIP)
    return figure


def _changes(axes: Axes, panel: ChangePanel, cell: float) -> None:
    layers, heads = panel.change.shape
    _cells(axes, panel.change, CLIP)
    _outline(axes, panel.zone)
    axes.set_title(panel.title, fontsize=SIZE - 1, color=INK, loc="left", linespacing=1.35)
    large = (np.abs(np.nan_to_num(panel.change)) > NUMBERS_ABOVE) & ~panel.operated
    for layer, head in np.argwhere(large).tolist():
        _write(axes, layer, head, panel.change[layer, head], CLIP, 18 * cell)
    axes.set_yticks(range(0, layers, 1 if layers <= 16 else 2))
    axes.set_xticks(range(0, heads, 1 if heads <= 16 else 2))
    axes.set_xlabel("head", fontsize=SIZE, color=INK)


@styled
def watched_map(
    found: Redistribution,
    step: int | None = None,
    *,
    published: Redistribution | None = None,
    title: str = "",
    footnote: str = "",
) -> Figure:
    """The zone of the operation alone: R where a head was operated on, else its signed change.

    As the paper's figure S1, on a scale of ±0.3.

    Args:
        found: with at least one head operated on or watched.
        step: by default the last.
        published: what the paper shows, to stand beside it under its own name.
        title, footnote: as of `change_map`.
    """
    step = found.steps[-1] if step is None else step
    shown = [(found, step), *([] if published is None else [(published, published.steps[-1])])]
    widest = max(_extent(each)[1].stop - _extent(each)[1].start for each, _ in shown)
    tallest = max(_extent(each)[0].stop - _extent(each)[0].start for each, _ in shown)
    cell = float(np.clip(4.6 / widest, 0.38, 0.6))
    figure = new_figure(
        max(5.4, len(shown) * (widest * cell + 0.5) + 1.5),
        tallest * min(cell, 0.42) + 2.0,
        title or f"Watched heads of {found.run} at step {step}",
        "R: operated on. Numbers: change of mass on the first token of the heads that were "
        f"watched, against the untouched model.\n{footnote}".strip(),
    )
    row = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, (each, at) in zip(row, shown, strict=True):
        _watched(axes, each, each.place(at))
        if published is not None:
            axes.set_title(each.run)
    _scale(figure, list(row), CLIP_WATCHED)
    return figure


def _extent(found: Redistribution) -> tuple[slice, slice]:
    """The rows and columns that the operated and watched heads lie in."""
    zone = np.argwhere(found.mask("operated") | found.mask("watched"))
    (top, left), (bottom, right) = zone.min(axis=0).tolist(), zone.max(axis=0).tolist()
    return slice(top, bottom + 1), slice(left, right + 1)


def _watched(axes: Axes, found: Redistribution, place: int) -> None:
    operated, watched = found.mask("operated"), found.mask("watched")
    rows, columns = _extent(found)
    top, left = rows.start, columns.start
    shown = np.where(watched, found.change[place], 0.0)[rows, columns]
    height, width = shown.shape
    _cells(axes, shown, CLIP_WATCHED)
    axes.set_aspect("auto")
    for layer, head in np.argwhere(operated | watched).tolist():
        if operated[layer, head]:
            _centred(axes, layer - top, head - left, "R", MUTED, SIZE - 2)
        else:
            change = found.change[place, layer, head]
            _write(axes, layer - top, head - left, change, CLIP_WATCHED, SIZE - 2, fixed=True)
    axes.set_yticks(range(height), [f"L{layer}" for layer in range(top, top + height)])
    axes.set_xticks(range(width), [f"H{head}" for head in range(left, left + width)])


def _counted(group: GroupChange) -> str:
    text = f"{group.drifted} of {group.heads} beyond 0.05"
    if group.could_change < group.heads:
        text += f" ({group.could_change} can)"
    return f"{text}, mean |Δ| {group.mean:.4f}"


def _cells(axes: Axes, change: Float[np.ndarray, "row column"], clip: float) -> None:
    rows, columns = change.shape
    axes.imshow(np.ma.masked_invalid(change), cmap=COLOURS, vmin=-clip, vmax=clip, aspect="equal")
    axes.set_facecolor(_NO_CHANGE_POSSIBLE)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#d5d9e0", linewidth=0.5)
    axes.tick_params(which="both", length=0, labelsize=SIZE - 2, colors=MUTED)


def _outline(axes: Axes, zone: Bool[np.ndarray, "layer head"]) -> None:
    """A line between every cell of the zone and its neighbour outside."""
    padded = np.pad(zone, 1)
    above = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    aside = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    lines = [[(x - 0.5, y - 0.5), (x + 0.5, y - 0.5)] for y, x in above]
    lines += [[(x - 0.5, y - 0.5), (x - 0.5, y + 0.5)] for y, x in aside]
    axes.add_collection(
        LineCollection(lines, colors="black", linewidths=1.6, capstyle="projecting", clip_on=False)
    )


def _write(
    axes: Axes, row: int, column: int, change: float, clip: float, size: float, fixed: bool = False
) -> None:
    text = f"{change:+.2f}" if fixed else f"{change:+.2f}".replace("0.", ".", 1)
    ink = "white" if abs(change) > 0.62 * clip else INK
    _centred(axes, row, column, text.replace("-", "−"), ink, size)


def _centred(axes: Axes, row: int, column: int, text: str, ink: str, size: float) -> None:
    axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)


def _scale(figure: Figure, panels: list[Axes], clip: float) -> None:
    scale = figure.colorbar(
        matplotlib.cm.ScalarMappable(Normalize(-clip, clip), COLOURS),
        ax=panels,
        shrink=0.9,
        pad=0.015,
        aspect=24,
        extend="both",
    )
    scale.outline.set_visible(False)
    scale.ax.tick_params(length=0, labelsize=SIZE - 1, colors=MUTED)
    scale.set_label("change of mass on the first token", fontsize=SIZE - 1, color=INK)
