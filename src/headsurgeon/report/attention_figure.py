"""One head's attention on one text: who looks at whom, and how much each token gets in all."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from headsurgeon.printable import printable
from headsurgeon.report.head_map_figure import COLOURS
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
    styled,
)

LABELLED = 64
_LONGEST = 14
_TICKS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


@styled
def attention_figure(
    attention: Float[np.ndarray, "row key"],
    tokens: Sequence[str],
    *,
    title: str,
    footnote: str = "",
) -> Figure:
    """Draws the map of one head, with the share of all attention each token receives above it.

    Colours follow the square root of the probability, so that a head that spreads its attention
    over many tokens is not a blank. Up to 64 tokens are named, more are numbered.

    Args:
        attention: probabilities; a row is the token that looks, a column the one it looks at.
        tokens: how each token is to be written; characters that the font lacks become □.
        title: heading.
        footnote: below the figure; where the collapse was planted it must say so.
    """
    length = len(attention)
    cell = float(np.clip(6.6 / length, 0.105, 0.4))
    side = max(3.6, length * cell)
    figure = new_figure(side + 2.4, side + 3.0, title, footnote)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(0.8, side))
    _received(above, attention)
    ahead = np.triu(np.ones_like(attention, dtype=bool), 1)
    below.set_facecolor(FIELD)
    image = below.imshow(
        np.ma.masked_array(attention, ahead),
        cmap=COLOURS,
        norm=PowerNorm(0.5, 0.0, 1.0),
        aspect="auto",
        interpolation="nearest",
    )
    quiet(below)
    label_axes(below, x="token looked at", y="token that looks")
    _name(below, tokens, cell)
    scale = figure.colorbar(image, ax=below, pad=0.015, aspect=30, ticks=_TICKS)
    scale.ax.set_yticklabels([f"{tick:g}" for tick in _TICKS])
    scale.outline.set_visible(False)
    scale.ax.tick_params(length=0, labelsize=SIZE - 1, colors=MUTED)
    scale.set_label("attention (square-root scale)", fontsize=SIZE - 1, color=INK)
    return figure


def _received(axes: Axes, attention: Float[np.ndarray, "row key"]) -> None:
    share = attention.mean(axis=0)
    axes.bar(range(len(share)), share, width=0.9, color=LINE_COLOURS[0])
    quiet(axes, "y")
    axes.tick_params(labelbottom=False)
    axes.set_ylim(0.0, max(0.05, 1.05 * float(share.max())))
    axes.set_title(
        "share of all attention, by the token it goes to", fontsize=SIZE - 1, color=INK, loc="left"
    )


def _name(axes: Axes, tokens: Sequence[str], cell: float) -> None:
    size = float(np.clip(58.0 * cell, 5.5, SIZE - 1))
    axes.tick_params(labelsize=size, colors=INK)
    if len(tokens) > LABELLED:
        return
    labels = [_short(token) for token in tokens]
    # labels are set again whenever the figure is drawn, so they are made literal here
    axes.set_xticks(range(len(tokens)), labels, rotation=90, parse_math=False)
    axes.set_yticks(range(len(tokens)), labels, parse_math=False)


def _short(token: str) -> str:
    """The token, shortened, on one line, with only characters that the font has."""
    shown = printable(token)
    return drawable(shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…")
