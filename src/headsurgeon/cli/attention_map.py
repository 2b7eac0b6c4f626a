"""One head's attention in the terminal: a row per token that looks, in tenths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions
from rich.text import Text

from headsurgeon.cli.head_map import mass_style
from headsurgeon.printable import printable

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float

_LABEL = 16
_CELL = 2
_MOST = 48
_MARK_EVERY = 5
_VISIBLE = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}


def visible(token: str) -> str:
    """A token as one can see it: white space as signs, other control characters escaped."""
    signs = (_VISIBLE.get(char, char) for char in token)
    return printable("".join(signs))


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """A rich renderable; readable without colour, and as wide as the terminal allows.

    A cell says how many tenths of its row's attention it has. Where there are more tokens than
    room, neighbours share a cell: the mean over the tokens that look, the sum over those looked at,
    so that a row still adds up.

    Attributes:
        attention: probabilities; a row is the token that looks.
        tokens: how each token is written.
    """

    attention: "Float[np.ndarray, 'row key']"
    tokens: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        fitting = min(_MOST, max(1, (options.max_width - _LABEL) // _CELL))
        size = -(-len(self.tokens) // fitting)
        cells = shared_cells(self.attention, size)
        yield Text(" " * _LABEL + _marks(len(cells), size), style="dim")
        for row, shares in enumerate(cells):
            line = Text(set_cell_size(self._label(row, size), _LABEL - 1) + " ")
            for share in shares[: row + 1]:
                line.append(_digit(float(share)).rjust(_CELL), mass_style(float(share)))
            yield line
        joined = f"{size} tokens per cell; " if size > 1 else ""
        yield Text(
            f"{joined}rows look at columns, in tenths of the row (9 is 0.85 or more, · at least "
            "0.01)",
            style="dim",
        )

    def _label(self, row: int, size: int) -> str:
        first = row * size
        if size == 1:
            return f"{first:>4} {visible(self.tokens[first])}"
        return f"{first:>4}–{min(len(self.tokens), first + size) - 1}"


def shared_cells(
    attention: "Float[np.ndarray, 'row key']", size: int
) -> "Float[np.ndarray, 'cell cell']":
    """The map with `size` neighbouring tokens per cell: mean over rows, sum over keys."""
    import numpy as np

    starts = np.arange(0, len(attention), size)
    sums = np.add.reduceat(np.add.reduceat(attention, starts, axis=0), starts, axis=1)
    rows = np.minimum(size, len(attention) - starts)
    return np.asarray(sums / rows[:, None])


def _digit(share: float) -> str:
    if share < 0.05:
        return "·" if share >= 0.01 else " "
    return str(min(9, int(10 * share + 0.5)))


def _marks(cells: int, size: int) -> str:
    """Positions above every fifth column."""
    width = _CELL * _MARK_EVERY
    # the last digit of a position's first place stands above its cell
    return "".join(f" {cell * size:<{width - 1}}" for cell in range(0, cells, _MARK_EVERY))
