"""`headsurgeon demo`: the whole way on one model, in a few minutes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.status import Status
from rich.text import Text

from headsurgeon.cli.console import err, head_map, heading, out, python_text, table
from headsurgeon.cli.loading import quieten
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.progress import add_run, new_bar, show_step
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from headsurgeon.demo.pipeline import DemoResult
    from headsurgeon.diagnosis import Diagnosis
    from headsurgeon.report import Table
    from headsurgeon.training import StepEvent


def demo(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Another model than the shipped one: a Hub id, a checkpoint folder, or zoo:NAME. "
            "Without a healthy twin there is no ceiling, and only idle heads are operated on.",
        ),
    ] = "zoo:bloom-mini-collapsed",
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for demo.json, summary.html, figures and the merged checkpoint.",
        ),
    ] = Path("headsurgeon-demo"),
) -> None:
    """Finds collapsed heads, repairs them, and compares the repair with a control and a ceiling.

    The shipped model's collapse was planted, so it is known how much a repair could bring back. The
    control trains the same weights on the same tokens without reinitialising them.
    """
    from headsurgeon.demo.record import RECORD

    check_folder(output, RECORD)
    quieten()
    from headsurgeon.demo import demo as run_demo
    from headsurgeon.demo import settings_for

    terminal = Terminal()
    try:
        result = run_demo(output, settings_for(model), terminal)
    finally:
        terminal.close()
    _show_files(result)


class Terminal:
    """Prints what the demo tells: a spinner or a training bar while it works, then results."""

    def __init__(self) -> None:
        self.console = out()
        self._status: Status | None = None
        self._bar: Progress | None = None

    def started(self, what: str) -> None:
        """Turns a spinner; nothing where there is no terminal."""
        self._status = err().status(Text(printable(f"{what} …")))
        self._status.start()

    def finished(self, what: str, seconds: float) -> None:
        """Says what is done and how long it took."""
        self.close()
        line = Text("✓ ", style="green").append(printable(what), style="default")
        self.console.print(line.append(f"  {seconds:.1f} s", style="dim"))

    def trained(self, arm: str, event: "StepEvent") -> None:
        """Moves the training bar."""
        if self._bar is None:
            self.close()
            self._bar = new_bar(transient=True)
            add_run(self._bar, f"  {arm}")
            self._bar.start()
        show_step(self._bar, self._bar.task_ids[0], event)

    def diagnosed(self, diagnosis: "Diagnosis") -> None:
        """Draws the map of layers × heads."""
        self.console.print()
        self.console.print(head_map(diagnosis))
        self.console.print()

    def heading(self, text: str) -> None:
        """Begins a part."""
        self.console.print()
        self.console.print(Text(text, style="bold cyan"))

    def said(self, text: str) -> None:
        """Prints a sentence."""
        self.console.print()
        self.console.print(Text(text))

    def tabulated(self, table_: "Table") -> None:
        """Prints a table and the note below it."""
        self.console.print()
        self.console.print(heading(table_.title))
        self.console.print(table(table_.columns, table_.rows))
        if table_.note:
            self.console.print(Text(table_.note, style="dim"))

    def close(self) -> None:
        """Stops spinner and bar."""
        for moving in (self._status, self._bar):
            if moving is not None:
                moving.stop()
        self._status, self._bar = None, None


def _show_files(result: "DemoResult") -> None:
    console = out()
    folder = result.folder
    console.print()
    console.print(Text(f"took {result.seconds:.1f} s; written to {folder}:", style="bold"))
    for name, what in (
        ("summary.html", "everything on one page, for a browser"),
        ("figures/", "head map, masses, loss, result"),
        ("merged/", f"AutoModelForCausalLM.from_pretrained({python_text(folder / 'merged')})"),
        ("demo.json", "every figure above"),
        ("runs/", "logs and patches of the arms"),
    ):
        console.print(Text(f"  {name:<14}").append(what, style="dim"), soft_wrap=True)
