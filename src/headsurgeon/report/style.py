"""How all figures look: colours that a colour-blind reader tells apart, quiet axes, one footnote.

matplotlib's object interface is used throughout, so drawing a figure changes no global state.
"""

import io
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

from headsurgeon.files import write_bytes
from headsurgeon.printable import printable

INK = "#1f2430"
MUTED = "#5c6370"
GRID = "#e3e6ec"
FIELD = "#eef1f6"
# Okabe & Ito 2008, "Color universal design": distinct under the common colour deficiencies.
ROLES: dict[str, tuple[str, str]] = {
    "paper": ("#0072B2", "o"),
    "gradient_only": ("#D55E00", "s"),
    "ceiling": ("#009E73", "^"),
    "untouched": (MUTED, "D"),
}
_OTHERS = (("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "X"))
DPI = 144
SIZE = 10.0
_CHARACTERS_PER_INCH = 15.5
_UNKNOWN = "□"


class LiteralFigure(Figure):
    """A figure whose texts are drawn as they are written, never as formulas."""

    def draw(self, renderer: RendererBase) -> None:
        """As `Figure.draw`; characters that no font has become □."""
        for text in self.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_usetex(False)
            text.set_text(drawable(text.get_text(), text.get_fontproperties()))
        super().draw(renderer)


def drawable(text: str, font: FontProperties | None = None) -> str:
    """The text with only characters that the font has; its line breaks stay."""
    glyphs = get_font(findfont(font or FontProperties()))
    return "".join(
        char if char == "\n" or glyphs.get_char_index(ord(char)) else _UNKNOWN
        for char in printable(text, keep="\n")
    )


def look(role: str, position: int = 0) -> tuple[str, str]:
    """Colour and marker of a role; of an unknown one by its position in the plot."""
    return ROLES.get(role, _OTHERS[position % len(_OTHERS)])


def new_figure(width: float, height: float, title: str, footnote: str) -> Figure:
    """An empty figure with its title above and its footnote below; sizes in inches."""
    figure = LiteralFigure(
        figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.012, ha="left", fontsize=SIZE + 2, fontweight="bold", color=INK)
    if footnote:
        limit = int(width * _CHARACTERS_PER_INCH)
        paragraphs = printable(footnote, keep="\n").split("\n")
        lines = [textwrap.fill(paragraph, limit) for paragraph in paragraphs]
        figure.supxlabel("\n".join(lines), x=0.012, ha="left", fontsize=SIZE - 1.5, color=MUTED)
    return figure


def quiet(axes: Axes, grid: str = "") -> None:
    """Leaves the frame out and the ticks muted; `grid` is `x`, `y` or nothing."""
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(side == "bottom" and grid == "y")
        axes.spines[side].set_color(GRID)
    axes.tick_params(length=0, labelsize=SIZE - 1, colors=MUTED)
    if grid == "x":
        axes.xaxis.grid(True, color=GRID, linewidth=0.8)
    if grid == "y":
        axes.yaxis.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def label_axes(axes: Axes, x: str = "", y: str = "") -> None:
    """Names the axes."""
    axes.set_xlabel(x, fontsize=SIZE, color=INK)
    axes.set_ylabel(y, fontsize=SIZE, color=INK)


def png(figure: Figure) -> bytes:
    """The figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": "headsurgeon"})
    return buffer.getvalue()


def write_png(figure: Figure, path: Path | str) -> bytes:
    """Writes the figure to `path`, atomically, and returns the PNG.

    Raises:
        WriteError: the file could not be written.
    """
    content = png(figure)
    write_bytes(path, content)
    return content
