"""What is being worked on: a spinner, a bar with the time left, and the bar of a training run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from rich.console import RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from headsurgeon.cli.console import err
from headsurgeon.cli.screen import Screen
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from headsurgeon.training import StepEvent

Item = TypeVar("Item")

# seconds after which a spinner says how it gets on
_A_WHILE = 2.0
# seconds that are announced
_LONG = 60.0
# a first step of this share says alone how long the others take
_MUCH = 0.05
_BAR_WIDTH = 16
# columns that what stands behind a bar mostly takes at most
_HOW = 21


@contextmanager
def busy(what: str, total: int | None = None, before: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows that `what` is being done while the body runs; nothing where there is no terminal.

    After two seconds a bar and the time left join the spinner, or, where nothing is known of what
    is to be done, the time that it took so far. More than a minute is announced in a line of its
    own, which a pipe gets too.

    Args:
        what: in words, such as `measuring 64 windows`.
        total: how much there is to do, such as windows to read or tokens to draw; None: unknown.
        before: how much of it was done earlier, and says nothing of how fast this is.

    Yields:
        A function to be told how much has been done since the last call, such as `on_windows`.
    """
    console = err()
    work = _Work(what, total, before, console)
    with Live(get_renderable=work.shown, console=console, refresh_per_second=10, transient=True):
        yield work.did


class _Work:
    """How something gets on."""

    def __init__(self, what: str, total: int | None, before: int, console: Screen) -> None:
        self._what, self._total, self._done = printable(what), total, before
        self._console = console
        self._spinner = Spinner("dots", style="status.spinner")
        self._began = monotonic()
        self._before = before
        # when the first step was over, and what was done then
        self._first: tuple[float, int] | None = None
        # when all is over, as far as is known
        self._end: float | None = None
        self._announced = False

    def did(self, amount: int) -> None:
        """So much more is done."""
        now = monotonic()
        self._done += amount
        if self._total is None or amount <= 0:
            return
        self._first = self._first or (now, self._done)
        since, start = self._first
        if self._done > start and now - since >= since - self._began:
            # the first step bears what is done once, such as reading code, and is left out
            enough = now - since >= _A_WHILE
        elif start - self._before >= _MUCH * self._total:
            since, start = self._began, self._before
            enough = now - since >= _LONG / 6
        else:
            return
        left = (now - since) / (self._done - start) * max(self._total - self._done, 0)
        self._end = now + left
        if enough and not self._announced:
            self._announced = True
            self._announce(now - self._began + left, left)

    def _announce(self, whole: float, left: float) -> None:
        if left > 0.0 and whole > _LONG:
            said = f"{self._what}: about {in_words(whole)}"
            self._console.print(said, style="dim", soft_wrap=True)

    def shown(self) -> Table:
        """The line as it is now; without its bar where it is wider than the terminal."""
        ran = monotonic() - self._began
        what, how = Text(f"{self._what} …"), Text(style="dim")
        row: list[RenderableType] = [self._spinner, what]
        if ran >= _A_WHILE:
            how.append(self._time(ran))
        if ran >= _A_WHILE and self._total:
            done = min(self._done, self._total)
            how = Text.assemble(f"{100 * done // self._total} % ", how)
            rest = _BAR_WIDTH + max(how.cell_len, _HOW) + 4
            if what.cell_len + rest <= self._console.width:
                row.append(ProgressBar(self._total, done, width=_BAR_WIDTH))
        if len(row) > 2:
            row.append(how)
        elif how:
            what.append(" ").append_text(how)
        line = Table.grid(padding=(0, 1))
        line.add_row(*row)
        return line

    def _time(self, ran: float) -> str:
        if self._end is None:
            return duration(ran)
        left = self._end - self._began - ran
        # between two steps it counts down
        return f"about {duration(left)} left" if left > -1.0 else "longer than expected"


def one_by_one(items: Sequence[Item], noun: str) -> Iterator[tuple[Item, str]]:
    """Each of several that take about equally long, and which it is, with the time left for all.

    More than a minute is announced when the first is done; of a single one nothing is said.
    """
    began, count = monotonic(), len(items)
    for index, item in enumerate(items):
        which = f" ({noun} {index + 1} of {count})" if count > 1 else ""
        if index:
            each = (monotonic() - began) / index
            left = duration(each * (count - index))
            which = f" ({noun} {index + 1} of {count}, about {left} left for all)"
            if index == 1 and each * count > _LONG:
                err().print(f"{count} {noun}s: about {in_words(each * count)}", style="dim")
        yield item, which


@contextmanager
def training_bar(what: str) -> "Iterator[Callable[[StepEvent], None]]":
    """Yields a function for `on_step` that moves a bar on stderr.

    The bar shows the loss on training and on dev text, tokens per second, how many heads of the
    model are healthy, and the time left.
    """
    with new_bar() as progress:
        task = add_run(progress, what)

        def on_step(event: "StepEvent") -> None:
            show_step(progress, task, event)

        yield on_step


def new_bar() -> Progress:
    """A bar on stderr, not started."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=_BAR_WIDTH),
        TextColumn("{task.fields[step]}", markup=False),
        TextColumn("{task.fields[numbers]}", style="dim", markup=False),
        console=err(),
    )


def add_run(progress: Progress, what: str) -> TaskID:
    """Adds a line for a training run to the bar; `show_step` moves it."""
    return progress.add_task(printable(what), total=None, step="", numbers="first evaluation …")


def show_step(progress: Progress, task: TaskID, event: "StepEvent") -> None:
    """Moves the bar to a step."""
    progress.update(
        task,
        total=event.steps,
        completed=event.step,
        step=f"{event.step}/{event.steps}",
        numbers=", ".join(_numbers(event)),
    )


def _numbers(event: "StepEvent") -> list[str]:
    numbers = [f"loss {event.loss:.3f}"]
    if event.dev_loss is not None:
        numbers.append(f"dev {event.dev_loss:.3f}")
    numbers.append(f"{event.tokens_per_second:,.0f} tokens/s")
    if event.healthy is not None:
        numbers.append(f"{event.healthy}/{event.heads} healthy")
    return [*numbers, f"{duration(event.seconds_left)} left"]


def duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def in_words(seconds: float) -> str:
    """Minutes, or hours and minutes, rounded; at least one minute."""
    hours, minutes = divmod(max(round(seconds / 60), 1), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
