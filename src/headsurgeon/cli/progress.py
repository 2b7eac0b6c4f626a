"""The live bar of a training run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from headsurgeon.cli.console import err
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from headsurgeon.training import StepEvent


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


def new_bar(transient: bool = False) -> Progress:
    """A bar on stderr, not started; `transient` ones vanish when they stop."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[step]}", markup=False),
        TextColumn("{task.fields[numbers]}", style="dim", markup=False),
        console=err(),
        transient=transient,
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
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
