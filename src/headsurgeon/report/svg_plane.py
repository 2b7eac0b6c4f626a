"""A plane with two axes as inline SVG; the page's style sheet has its colours, for light and dark.

One unit is one pixel where the drawing is 400 wide, so that it can be read on a phone.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from headsurgeon.printable import printable

WIDTH = 400
_LINE = 13.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Plane:
    """Where numbers lie in a drawing.

    Attributes:
        low, high: the corners, as numbers of both axes.
        height: of the drawing.
        right: room at the right, such as for names of lines.
    """

    low: Point
    high: Point
    height: int = 230
    left: int = 44
    right: int = 12
    top: int = 12
    bottom: int = 36

    def x(self, value: float) -> float:
        """Where a number of the lower axis lies."""
        share = (value - self.low[0]) / ((self.high[0] - self.low[0]) or 1.0)
        return self.left + min(max(share, 0.0), 1.0) * (WIDTH - self.left - self.right)

    def y(self, value: float) -> float:
        """Where a number of the left axis lies; beyond the ends at the edge."""
        share = (value - self.low[1]) / ((self.high[1] - self.low[1]) or 1.0)
        return self.height - self.bottom - min(max(share, 0.0), 1.0) * self.inner

    @property
    def inner(self) -> float:
        """Height between the edges."""
        return float(self.height - self.top - self.bottom)

    def drawn(self, name: str, *parts: str) -> Markup:
        """The whole drawing; `name` says what it is to those who cannot see it."""
        label = escape(printable(name))
        return Markup(
            f'<svg class="chart" viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-label="{label}">{"".join(parts)}</svg>'
        )

    def axes(
        self,
        x: str,
        y: str,
        x_ticks: Sequence[tuple[float, str]] | None = None,
        y_ticks: Sequence[tuple[float, str]] | None = None,
    ) -> str:
        """Both axes with their names; by default with round numbers."""
        floor, right = self.height - self.bottom, WIDTH - self.right
        parts = [f'<path class="axis" d="M{self.left} {floor}H{right}"/>']
        for value, said in ticks(self.low[1], self.high[1]) if y_ticks is None else y_ticks:
            at = self.y(value)
            parts.append(f'<path class="grid" d="M{self.left} {at:.1f}H{right}"/>')
            parts.append(text(self.left - 5, at + 4, said, "end"))
        for value, said in ticks(self.low[0], self.high[0], 5) if x_ticks is None else x_ticks:
            parts.append(text(self.x(value), floor + 14, said, "mid"))
        parts.append(text(self.left, 9, y) if self.top > 16 else "")
        parts.append(text((self.left + right) / 2, self.height - 4, x, "mid"))
        return "".join(parts)

    def line(self, points: Iterable[Point], style: str) -> str:
        """A line through points that are numbers."""
        places = [f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in points if math.isfinite(b)]
        return f'<path class="line {style}" d="M{"L".join(places)}"/>' if places else ""

    def dots(self, points: Iterable[Point], style: str) -> str:
        """A dot at each point that is a number."""
        places = [f"M{self.x(a):.1f} {self.y(b):.1f}h0" for a, b in points if math.isfinite(b)]
        return f'<path class="dots {style}" d="{"".join(places)}"/>' if places else ""

    def across(self, value: float, style: str) -> str:
        """A line at one number of the left axis."""
        right = WIDTH - self.right
        return f'<path class="line {style}" d="M{self.left} {self.y(value):.1f}H{right}"/>'

    def upright(self, value: float, style: str) -> str:
        """A line at one number of the lower axis."""
        at = f"{self.x(value):.1f}"
        return f'<path class="line {style}" d="M{at} {self.top}V{self.height - self.bottom}"/>'

    def ends(self, names: Sequence[tuple[float, str, str]]) -> str:
        """Names beside the ends of lines, moved apart: height as a number, name, style."""
        ordered = sorted(names, key=lambda each: -each[0])
        places: list[float] = []
        for value, _, _ in ordered:
            lowest = places[-1] + _LINE if places else float(self.top)
            places.append(max(self.y(value) + 4, lowest))
        over = max(0.0, places[-1] - (self.height - self.bottom)) if places else 0.0
        for index in range(len(places) - 1, -1, -1):
            limit = places[index + 1] - _LINE if index + 1 < len(places) else math.inf
            places[index] = min(places[index] - (over if index + 1 == len(places) else 0.0), limit)
        left = WIDTH - self.right + 4
        return "".join(
            text(left, place, said, style)
            for place, (_, said, style) in zip(places, ordered, strict=True)
        )


def text(x: float, y: float, said: str, style: str = "") -> str:
    """Words at a place."""
    kind = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind}>{escape(printable(said))}</text>'


def ticks(low: float, high: float, count: int = 4) -> list[tuple[float, str]]:
    """Round numbers from `low` to `high`, about as many as asked for, with their texts."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [(low, f"{low:g}")]
    rough = span / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9) + (step / power == 2.5))
    found = []
    for index in range(first, first + count * 3):
        value = index * step
        if value > high + 1e-9 * span:
            break
        found.append((value, short(value, digits)))
    return found


def short(value: float, digits: int) -> str:
    """A number for an axis: 1.5k, 2M; with a real minus sign."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % (size / 10) == 0):
            return f"{value / size:g}{letter}".replace("-", "−")
    return f"{value + 0.0:.{digits}f}".replace("-", "−")
