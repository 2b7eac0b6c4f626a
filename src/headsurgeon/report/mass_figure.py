"""How the masses of a model's heads are spread: the paper's figure 1."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headsurgeon.diagnosis.verdicts import PAPER, Thresholds
from headsurgeon.report.mass_bins import mass_bins
from headsurgeon.report.style import (
    INK,
    LINE_COLOURS,
    MUTED,
    NULL,
    SIZE,
    fitted,
    label_axes,
    new_figure,
    quiet,
    styled,
)

HEALTHY, SICK = LINE_COLOURS[:2]
# inches
WIDTH = 7.6


@dataclass(frozen=True, eq=False)
class MassPanel:
    """One histogram.

    Attributes:
        label: whose heads they are.
        mass: `first_token_mass` of each head, fraction.
        null: of the same heads untrained, fraction; empty where it is not known.
        published: heads in as many equal parts of 0 to 1 as are drawn, read off the paper's
            figures; empty where there is nothing.
    """

    label: str
    mass: Float[np.ndarray, " head"]
    null: Float[np.ndarray, " other"]
    published: Float[np.ndarray, " bin"]

    @classmethod
    def of(
        cls,
        label: str,
        mass: Float[np.ndarray, "..."],
        null: Float[np.ndarray, "..."] | None = None,
        published: Float[np.ndarray, " bin"] | None = None,
    ) -> "MassPanel":
        """From values of any shape; layers without attention, where they are NaN, are left out."""
        known = np.empty(0) if null is None else null[np.isfinite(null)]
        return cls(
            label, mass[np.isfinite(mass)], known, np.empty(0) if published is None else published
        )


@styled
def mass_histogram(
    panels: Sequence[MassPanel],
    *,
    thresholds: Thresholds = PAPER,
    bins: int = 40,
    title: str,
    footnote: str = "",
) -> Figure:
    """How the heads' masses are spread, with what untrained heads would show behind them.

    Args:
        panels: drawn one above the other; what is published of one stands before it as a line.
        thresholds: drawn where a head becomes sick, and dead; sick heads have another colour.
        bins: equal parts of 0 to 1; the paper's figure 1 has 50.
        title: heading.
        footnote: below the figure.
    """
    height = 1.5 if len(panels) > 1 else 2.6
    figure = new_figure(WIDTH, 1.5 + height * len(panels), title, footnote)
    stack = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    edges = np.linspace(0.0, 1.0, bins + 1)
    for place, (axes, panel) in enumerate(zip(stack, panels, strict=True)):
        nulls = _null(axes, panel)
        is_sick = thresholds.is_sick(panel.mass)
        below = np.zeros(bins)
        for masses, colour in ((panel.mass[~is_sick], HEALTHY), (panel.mass[is_sick], SICK)):
            counts = mass_bins(masses, bins)
            axes.bar(
                edges[:-1],
                counts,
                1.0 / bins,
                below,
                align="edge",
                color=colour,
                edgecolor="white",
                linewidth=0.6,
            )
            below = below + counts
        if len(panel.published):
            axes.stairs(panel.published, np.linspace(0.0, 1.0, len(panel.published) + 1), color=INK)
        for limit in (thresholds.sink, thresholds.dead):
            axes.axvline(limit, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        quiet(axes, "y")
        axes.yaxis.get_major_locator().set_params(integer=True)
        heads, sick = len(panel.mass), int(is_sick.sum())
        mean = f", mean {panel.mass.mean():.3f}" if heads else ""
        axes.set_title(fitted(f"{panel.label}: {sick} of {heads} heads sick{mean}", 0.8 * WIDTH))
        # headroom for the notes
        axes.set_ylim(0.0, 1.25 * max(1.0, axes.get_ylim()[1]))
        if place == 0:
            _note(axes, thresholds.sink + 0.008, f"sick above {thresholds.sink:g}", SICK, "left")
            _note(axes, thresholds.dead - 0.008, f"dead above {thresholds.dead:g}", MUTED, "right")
        if nulls:
            _note(axes, *nulls, MUTED, "left")
    stack[-1].set_xlim(0.0, 1.0)
    label_axes(stack[-1], x="mass on the first token (fraction)")
    figure.supylabel("heads", fontsize=SIZE, color=INK)
    return figure


def _null(axes: Axes, panel: MassPanel) -> tuple[float, str] | None:
    """Draws the range of the untrained heads; returns where it ends, and what it is."""
    if not len(panel.null):
        return None
    low, high = float(panel.null.min()), float(panel.null.max())
    # a band narrower than a bin would not be seen
    middle, half = (low + high) / 2.0, max((high - low) / 2.0, 0.004)
    axes.axvspan(middle - half, middle + half, color=NULL, alpha=0.55, lw=0)
    bounds = dict.fromkeys((f"{low:.3f}", f"{high:.3f}"))
    return middle + half + 0.008, f"untrained heads: {'–'.join(bounds)}"


def _note(axes: Axes, x: float, text: str, colour: str, align: str) -> None:
    axes.annotate(
        text,
        (x, 1.0),
        xytext=(0, -3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha=align,
        va="top",
        color=colour,
        fontsize=SIZE - 2,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.8},
    )
