"""How all figures look: colours that a colour-blind reader tells apart, quiet axes, one footnote.

Type, sizes and colours stand in `headsurgeon.mplstyle`. Functions that draw are `styled`, and
matplotlib's object interface is used throughout, so drawing a figure changes no global state.
"""

import io
import textwrap
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args

from matplotlib import rc_context, rc_params_from_file
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.text import Text

from headsurgeon.files import write_bytes
from headsurgeon.printable import printable

Format = Literal["svg", "png", "pdf"]
FORMATS: tuple[Format, ...] = get_args(Format)
STYLE = rc_params_from_file(
    str(files("headsurgeon.report") / "headsurgeon.mplstyle"), use_default_template=False
)
INK: str = STYLE["text.color"]
MUTED: str = STYLE["xtick.color"]
GRID: str = STYLE["grid.color"]
DPI: float = STYLE["figure.dpi"]
SIZE: float = STYLE["font.size"]
LINE_COLOURS: list[str] = STYLE["axes.prop_cycle"].by_key()["color"]
FIELD = "#eef1f6"
# the range of untrained heads, behind what was measured
NULL = "#F0C419"
_CHARACTERS_PER_INCH = 15.5
_UNKNOWN = "□"
_Arguments = ParamSpec("_Arguments")
_Drawn = TypeVar("_Drawn")


def styled(draw: Callable[_Arguments, _Drawn]) -> Callable[_Arguments, _Drawn]:
    """Has a function draw in the package's style, whatever the user's own is."""

    @wraps(draw)
    def drawing(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> _Drawn:
        with rc_context(STYLE):
            return draw(*arguments, **named)

    return drawing


class LiteralFigure(Figure):
    """A figure whose texts are drawn as they are written, never as formulas."""

    def draw(self, renderer: Any) -> None:
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


def fitted(text: str, inches: float) -> str:
    """A title on as many lines as it needs; the SPEC of a mixture may break between its corpora."""
    breakable = textwrap.fill(text.replace("+", "+\x1f "), int(inches * _CHARACTERS_PER_INCH))
    return breakable.replace("\x1f ", "").replace("\x1f", "")


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
    return picture(figure, "png")


@styled
def picture(figure: Figure, kind: Format, caption: str = "") -> bytes:
    """The figure as a file of some format; the same figure gives the same bytes.

    Args:
        figure: what to draw.
        kind: text is outlines in SVG and an embedded font in PDF, both to be scaled at will.
        caption: what the file says of itself.
    """
    said = printable(caption)
    metadata: dict[Format, dict[str, str | None]] = {
        "png": {"Software": "headsurgeon", **({"Description": said} if said else {})},
        "svg": {"Creator": "headsurgeon", "Date": None, "Description": said},
        "pdf": {"Creator": "headsurgeon", "CreationDate": None, "Subject": said},
    }
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata[kind])
    return buffer.getvalue()


def write_png(figure: Figure, path: Path | str) -> bytes:
    """Writes the figure to `path`, atomically, and returns the PNG.

    Raises:
        WriteError: the file could not be written.
    """
    content = png(figure)
    write_bytes(path, content)
    return content


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
