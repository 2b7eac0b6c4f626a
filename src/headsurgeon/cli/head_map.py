"""Layers × heads in the terminal: mass as a colour and a number, the verdict as a letter."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float, Shaped

# as in headsurgeon.heads, which loads numpy; the overview of all commands must not wait for that
NO_ATTENTION = "no attention"
LETTERS = {"healthy": " ", "sink": "S", "dead": "D", "low-entropy": "E"}
LEGEND = "S sink, D dead, E low-entropy, ? borderline"
_LABEL = 6
_TOTAL = 5
# Inferno by Nathaniel Smith and Stéfan van der Walt: even steps, also without colour vision.
_COLOURS = (
    (20, 11, 53),
    (66, 10, 104),
    (106, 23, 110),
    (147, 38, 103),
    (188, 55, 84),
    (221, 81, 58),
    (243, 120, 25),
    (252, 165, 10),
    (246, 215, 70),
    (252, 255, 164),
)


@dataclass(frozen=True, eq=False)
class HeadMap:
    """A rich renderable; readable without colour, and as wide as the terminal allows.

    With room for it a cell says the mass in per cent, the verdict's letter and `?` when borderline;
    otherwise the letter and the mark alone. Heads that do not fit beside each other even so go
    below.

    Attributes:
        mass: `first_token_mass`, fraction.
        verdicts: `Verdict` of every head, or `no attention`.
        borderline: heads whose interval reaches into another verdict.
        slopes: effective ALiBi slope per head; all 0 without a position bias.
    """

    mass: "Float[np.ndarray, 'layer head']"
    verdicts: "Shaped[np.ndarray, 'layer head']"
    borderline: "Bool[np.ndarray, 'layer head']"
    slopes: "Float[np.ndarray, ' head']"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        heads = len(self.slopes)
        room = options.max_width - _LABEL - _TOTAL
        wide = room >= 5 * heads
        cell = 5 if wide else 2
        legend = LEGEND + ("; · no attention" if (self.verdicts == NO_ATTENTION).any() else "")
        fitting = max(1, room // cell)
        for first in range(0, heads, fitting):
            if first:
                yield Text()
            yield from self._block(range(first, min(heads, first + fitting)), cell)
        shown = "% of attention on the first token" if wide else "colour: mass on the first token"
        yield Text(f"{shown}; {legend}", style="dim")

    def _block(self, heads: range, cell: int) -> Iterator[Text]:
        yield from self._header(heads, cell)
        for layer in range(len(self.mass)):
            line = Text(f"L{layer}".ljust(_LABEL))
            for head in heads:
                line.append_text(self._cell(layer, head, cell))
            sick = sum(self._is_sick(layer, head) for head in heads)
            without = (self.verdicts[layer] == NO_ATTENTION).all()
            count = "" if without else f"{sick:{_TOTAL}d}"
            yield line.append(count, style="bold" if sick else "dim")
        sums = [
            sum(self._is_sick(layer, head) for layer in range(len(self.mass))) for head in heads
        ]
        yield from self._numbers("sick", [str(sick) for sick in sums], cell)

    def _header(self, heads: range, cell: int) -> Iterator[Text]:
        yield from self._numbers("head", [str(head) for head in heads], cell, end="sick")
        if self.slopes.any():
            slopes = [f"{self.slopes[head]:.3f}".removeprefix("0") for head in heads]
            yield from self._numbers("slope", slopes, cell)

    def _numbers(self, label: str, values: list[str], cell: int, end: str = "") -> Iterator[Text]:
        """A line of numbers; where a cell is narrower than they are, they stand upright."""
        lines = [[value.rjust(3) for value in values]]
        if cell < 5:
            height = max(map(len, values))
            upright = [value.rjust(height) for value in values]
            lines = [[value[index] for value in upright] for index in range(height)]
        for index, line in enumerate(lines):
            last = index == len(lines) - 1
            text = "".join(value.ljust(cell) for value in line)
            front, back = (label, end.rjust(_TOTAL)) if last else ("", "")
            yield Text(f"{front.ljust(_LABEL)}{text}{back}", style="dim")

    def _cell(self, layer: int, head: int, width: int) -> Text:
        if self.verdicts[layer, head] == NO_ATTENTION:
            return Text("·".rjust((width + 1) // 2).ljust(width), style="dim")
        mass = float(self.mass[layer, head])
        letter = LETTERS[str(self.verdicts[layer, head])]
        mark = "?" if self.borderline[layer, head] else " "
        number = f"{100 * mass:3.0f}" if width == 5 else ""
        return Text(f"{number}{letter}{mark}", style=mass_style(mass))

    def _is_sick(self, layer: int, head: int) -> bool:
        return self.verdicts[layer, head] in ("sink", "dead")


def mass_style(mass: float) -> Style:
    """The colour of a fraction: dark is 0, bright is 1, with letters that can be read on it."""
    place = min(max(mass, 0.0), 1.0) * (len(_COLOURS) - 1)
    below = min(int(place), len(_COLOURS) - 2)
    share = place - below
    red, green, blue = (
        round((1 - share) * low + share * high)
        for low, high in zip(_COLOURS[below], _COLOURS[below + 1], strict=True)
    )
    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 130
    return Style(color="white" if dark else "black", bgcolor=f"rgb({red},{green},{blue})")
