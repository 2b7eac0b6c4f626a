"""Head maps of several models in one figure, whatever their shapes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from headsurgeon.report.data import HeadView
from headsurgeon.report.head_map_figure import colour_scale, draw_panel, legend
from headsurgeon.report.style import INK, SIZE, new_figure, styled

# columns of cells beside each other before a map goes into the next row
_COLUMNS = 64


@styled
def model_maps(
    views: Sequence[HeadView],
    *,
    title: str = "Attention on the first token",
    footnote: str = "",
) -> Figure:
    """Draws one panel per model, all on one colour scale from 0 to 1, layer 0 at the bottom.

    So are the paper's maps of its four models (figure 2), and the limit of sickness is marked.

    Args:
        views: at least one; a title may have several lines.
        title: heading of the figure.
        footnote: below it; where the collapse was planted it must say so.
    """
    rows = _rows(views)
    # room beside each map for its layer numbers
    widths = [sum(view.mass.shape[1] + 2 for view in row) for row in rows]
    heights = [max(len(view.mass) for view in row) for row in rows]
    # neither wider nor taller than a page
    cell = float(np.clip(min(11.0 / max(widths), 8.5 / max(heights)), 0.24, 0.5))
    width = max(7.0, max(widths) * cell + 1.4)
    figure = new_figure(
        width, sum(heights) * cell + 1.5 * len(rows) + 0.9, title, f"{legend(views)}.\n{footnote}"
    )
    grid = figure.add_gridspec(len(rows), 1, height_ratios=heights)
    for index, row in enumerate(rows):
        inside = grid[index].subgridspec(1, len(row), width_ratios=[v.mass.shape[1] for v in row])
        panels = [figure.add_subplot(inside[column]) for column in range(len(row))]
        for axes, view in zip(panels, row, strict=True):
            draw_panel(axes, view, (), cell)
            axes.invert_yaxis()
        panels[0].set_ylabel("layer", fontsize=SIZE, color=INK)
        colour_scale(figure, panels, views[0].thresholds.sink)
        for axes in panels:
            # after the scale, which anchors its panels at the middle
            axes.set_anchor("NW")
    return figure


def _rows(views: Sequence[HeadView]) -> list[list[HeadView]]:
    """The views in order, as many beside each other as there is room for."""
    rows: list[list[HeadView]] = [[]]
    for view in views:
        taken = sum(other.mass.shape[1] for other in rows[-1])
        if rows[-1] and taken + view.mass.shape[1] > _COLUMNS:
            rows.append([])
        rows[-1].append(view)
    return rows
