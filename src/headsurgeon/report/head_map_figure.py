"""The head map: layers × heads, the darker the more attention lies on the first token."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from headsurgeon.heads import NO_ATTENTION, HeadId
from headsurgeon.report.colours import OPERATED
from headsurgeon.report.data import HeadView
from headsurgeon.report.style import INK, MUTED, SIZE, new_figure, styled

# perceptually uniform and monotonic in lightness, so it survives grey print
COLOURS = matplotlib.colormaps["magma_r"]
_DARK = 0.42


@styled
def head_map(
    views: Sequence[HeadView],
    operated: Sequence[HeadId] = (),
    *,
    title: str = "Attention on the first token",
    footnote: str = "",
) -> Figure:
    """Draws one panel per view, all on the same colour scale from 0 to 1.

    Args:
        views: one to three measurements of models of the same shape, such as before and after.
        operated: heads to outline.
        title: heading of the figure.
        footnote: one or two sentences below it; where the collapse was planted it must say so.
    """
    layers, heads = views[0].mass.shape
    cell = float(np.clip(4.6 / heads, 0.26, 0.5))
    width = max(6.0, len(views) * (heads * cell + 0.55) + 1.3)
    key = legend(views) + ("; blue outline: operated on." if len(operated) else ".")
    figure = new_figure(width, layers * cell + 1.95, title, f"{key}\n{footnote}")
    panels = figure.subplots(1, len(views), squeeze=False)[0]
    for axes, view in zip(panels, views, strict=True):
        draw_panel(axes, view, operated, cell)
    panels[0].set_ylabel("layer", fontsize=SIZE, color=INK)
    colour_scale(figure, list(panels))
    return figure


def legend(views: Sequence[HeadView]) -> str:
    """What the marks mean; of verdicts other than sick those that are there."""
    limits = views[0].thresholds
    key = [f"S sink (mass > {limits.sink:g})", f"D dead (mass > {limits.dead:g})"]
    for verdict, words in (("low-entropy", "E low entropy"), (NO_ATTENTION, "· no attention")):
        key += [words] if any((view.verdicts == verdict).any() for view in views) else []
    key += ["? borderline"] if any(view.borderline.any() for view in views) else []
    return ", ".join(key)


def colour_scale(figure: Figure, panels: Sequence[Axes], limit: float | None = None) -> None:
    """The scale from 0 to 1 at the right of all panels; marks where a head becomes sick."""
    scale = figure.colorbar(
        matplotlib.cm.ScalarMappable(Normalize(0.0, 1.0), COLOURS),
        ax=list(panels),
        shrink=0.9,
        pad=0.015,
        aspect=24,
    )
    scale.outline.set_visible(False)
    scale.ax.tick_params(length=0, labelsize=SIZE - 1, colors=MUTED)
    if limit is not None:
        scale.ax.axhline(limit, color=OPERATED, linewidth=1.6)
        # a number beside the mark would cover its name
        others = [tick for tick in (0.0, 0.25, 0.5, 0.75, 1.0) if abs(tick - limit) > 0.05]
        scale.set_ticks([*others, limit], labels=[*(f"{tick:g}" for tick in others), "sick"])
    scale.set_label("mass on the first token", fontsize=SIZE - 1, color=INK)


def draw_panel(axes: Axes, view: HeadView, operated: Sequence[HeadId], cell: float) -> None:
    """One map; `cell` is the size of a cell in inches, which the letters follow."""
    layers, heads = view.mass.shape
    axes.imshow(view.mass, cmap=COLOURS, vmin=0.0, vmax=1.0, aspect="equal")
    axes.set_title(view.title, fontsize=SIZE, color=INK, loc="left")
    for layer, head in np.ndindex(layers, heads):
        ink = "white" if view.mass[layer, head] > _DARK else INK
        # an empty cell would pass for a healthy head of little mass
        without = view.verdicts[layer, head] == NO_ATTENTION
        mark = "·" if without else view.mark((layer, head))
        axes.text(head, layer, mark, ha="center", va="center", color=ink, fontsize=22 * cell)
    for layer, head in operated:
        axes.add_patch(
            Rectangle(
                (head - 0.44, layer - 0.44), 0.88, 0.88, fill=False, ec=OPERATED, lw=3.6 * cell
            )
        )
    for side in axes.spines.values():
        side.set_visible(False)
    # hairlines between cells, which an image does not draw
    axes.set_xticks(np.arange(heads + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(layers + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0, labelsize=SIZE - 2, colors=MUTED)
    axes.set_yticks(range(0, layers, 1 if layers <= 16 else 2))
    axes.set_xticks(range(heads), _columns(view.slopes[0]), rotation=0 if heads <= 8 else 90)
    label = "head and its ALiBi slope" if view.slopes.any() else "head"
    axes.set_xlabel(label, fontsize=SIZE, color=INK)


def _columns(slopes: Float[np.ndarray, " head"]) -> list[str]:
    if not slopes.any():
        return [str(head) for head in range(len(slopes))]
    short = len(slopes) <= 8
    separator = "\n" if short else "  "
    return [f"{head}{separator}{_slope(slope)}" for head, slope in enumerate(slopes)]


def _slope(slope: float) -> str:
    # fixed at four decimals below 0.1, where slopes halve from head to head
    return (f"{slope:.3g}" if slope >= 0.1 else f"{slope:.4f}").removeprefix("0")
