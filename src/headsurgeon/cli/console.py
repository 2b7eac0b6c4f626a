"""What the terminal shows: consoles, tables, facts."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from headsurgeon.cli import screen
from headsurgeon.cli.head_map import HeadMap
from headsurgeon.cli.screen import Screen
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from headsurgeon.diagnosis import Diagnosis
    from headsurgeon.scores import Estimate


# widest name of a row that is never wrapped
_NAME = 28


def out() -> Screen:
    """For results: stdout."""
    return Screen()


def err() -> Screen:
    """For progress: stderr, so that results can be piped."""
    return Screen(stderr=True)


def head_map(diagnosis: "Diagnosis") -> HeadMap:
    """The layers × heads map of a diagnosis, for `Console.print`."""
    stats = diagnosis.stats
    return HeadMap(
        mass=stats.first_token_mass,
        verdicts=diagnosis.verdicts,
        borderline=diagnosis.borderline,
        slopes=stats.slopes[0],
    )


def heading(text: str) -> Text:
    """What stands above a table or a list of facts."""
    return Text(printable(text), style="bold")


def command_line(*words: object) -> str:
    """A command as it is to be typed, as far as stdout can show it; see `screen.command_line`."""
    return screen.command_line(*words, encoding=out().encoding)


def show_next(command: str, subject: object, *options: object) -> None:
    """Prints a command of ours to be typed next, which the shell reads back as these words."""
    console = out()
    words = screen.next_step(command, subject, *options, encoding=console.encoding)
    console.print(f"next: {words}", soft_wrap=True)


def python_text(value: object) -> str:
    """A text as a Python literal that stdout can show."""
    return screen.python_text(value, out().encoding)


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> Table:
    """A plain table; the first column names the row, the others hold numbers.

    Cells are shown literally; one of several lines is a `Text`.
    """
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if index else "left"
        # what names a row stays whole as long as it is short; the others share what is left
        names = 0 if index else max((len(str(row[0])) for row in rows), default=0)
        whole = not index and names <= _NAME
        result.add_column(
            Text(printable(column)), justify=justify, header_style="dim", no_wrap=whole
        )
    for row in rows:
        result.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return result


def facts(items: Mapping[str, str]) -> Table:
    """Names and what is to be said of them, in two columns."""
    result = Table.grid(padding=(0, 2))
    result.add_column(style="dim", no_wrap=True)
    result.add_column()
    for name, value in items.items():
        result.add_row(Text(printable(name)), Text(printable(value)))
    return result


def nats(estimate: "Estimate") -> str:
    """A difference of losses with its interval, in nats per token."""
    return f"{estimate.value:+.4f} {bounds(estimate.low, estimate.high, '+.4f')} nats"


def bounds(low: float, high: float, form: str = ".4f") -> str:
    """An interval in brackets; without one, the reason."""
    if low != low:
        return "[no interval: one document]"
    return f"[{low:{form}}, {high:{form}}]"


def percent(share: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * share:.1f} %"


def first_few(names: Sequence[object], limit: int = 12) -> str:
    """The first names of many, and how many more there are."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
