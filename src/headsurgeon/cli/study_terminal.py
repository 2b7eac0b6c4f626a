"""How a study gets on, and what it came to, on the terminal."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from headsurgeon.cli.console import err, head_map, heading, out, table
from headsurgeon.cli.progress import busy
from headsurgeon.cli.tensorboard import send_runs
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from headsurgeon.report import Page, Table
    from headsurgeon.study import Study, StudyResult
    from headsurgeon.study.engines import Task


def run_and_show(
    study: "Study",
    output: Path,
    *,
    engine: str = "local",
    jobs: int = 1,
    device: str = "cpu",
    options: dict[str, str | int] | None = None,
    tensorboard: bool = False,
) -> tuple["StudyResult", "Page"]:
    """Runs a study, says how it gets on, writes its page, and prints what is on it."""
    from headsurgeon.report.folder_page import PAGE
    from headsurgeon.report.page import write_page
    from headsurgeon.report.study_page import study_page
    from headsurgeon.study import run_study

    terminal = StudyTerminal(output, tensorboard)
    try:
        result = run_study(
            study,
            output,
            engine=engine,
            jobs=jobs,
            device=device,
            options=options,
            observer=terminal,
        )
    finally:
        terminal.close()
    with busy("writing the page"):
        page = study_page(result)
        write_page(page, result.folder / PAGE)
    for section in page.sections:
        if not section.folded:
            for each in section.tables:
                show_table(each)
    for said in (*page.lead, page.notice):
        show_sentence(said)
    return result, page


class StudyTerminal:
    """Shows how a study gets on: a line for all that is done, the verdicts, and a bar."""

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.folder, self.tensorboard = folder, tensorboard
        # what moves
        self._now = ExitStack()
        self._did: Callable[[int], None] | None = None
        self._step = ("", 0.0)

    def prepared(self, what: str, windows: int | None) -> None:
        """A step of the preparation begins, so the one before it is done."""
        self._finish_step()
        self._step = (what, time.monotonic())
        self._did = self._now.enter_context(busy(what, windows))

    def read(self, windows: int) -> None:
        """Of the step, so much more is done."""
        if self._did is not None:
            self._did(windows)

    def planned(self, todo: int, done: int) -> None:
        """All is prepared, and so many cells are to be computed."""
        self._finish_step()
        self._show_verdicts()
        if self.tensorboard:
            # what was done before
            send_runs(self.folder, sorted(self.folder.glob("cells/*/")))
        self._did = self._now.enter_context(
            busy(f"the study, {todo + done} parts", todo + done, done)
        )

    def finished(self, task: "Task") -> None:
        """One more is done."""
        from headsurgeon.study.results import CellResult, cell_file, folder_of

        if self._did is not None:
            self._did(1)
        if task.what != "cell":
            _show_done(str(task), None)
            return
        if self.tensorboard:
            send_runs(self.folder, [folder_of(self.folder, task.cell)])
        cell = CellResult.load(cell_file(self.folder, task.cell))
        if cell.status == "done":
            _show_done(str(task), cell.seconds)
        else:
            err().print(Text(printable(f"✗ {task} failed: {cell.failure.splitlines()[-1]}")))

    def close(self) -> None:
        """Stops what moves."""
        self._now.close()
        self._now, self._did = ExitStack(), None

    def _finish_step(self) -> None:
        self.close()
        what, since = self._step
        if what:
            _show_done(what, time.monotonic() - since)
        self._step = ("", 0.0)

    def _show_verdicts(self) -> None:
        from headsurgeon.diagnosis import Diagnosis
        from headsurgeon.planning import Plan
        from headsurgeon.study import Study
        from headsurgeon.study.results import PLAN, STUDY, diagnosis_file

        for name in Study.load(self.folder / STUDY).diagnosed:
            diagnosis = Diagnosis.load(diagnosis_file(self.folder, name))
            source = diagnosis.stats.provenance
            show_sentence(
                f"{source.model} on {name}, split {source.split}: {source.count} windows of "
                f"{source.length} tokens"
            )
            out().print()
            out().print(head_map(diagnosis))
        plan = Plan.load(self.folder / PLAN)
        show_sentence(f"{len(plan.operated)} heads to operate on, rule {plan.rule}.")


def show_table(each: "Table") -> None:
    """Prints a table and the note below it."""
    console = out()
    console.print()
    console.print(heading(each.title))
    console.print(table(each.columns, each.rows))
    if each.note:
        console.print(Text(each.note, style="dim"))


def show_sentence(text: str) -> None:
    """Prints a paragraph."""
    console = out()
    console.print()
    console.print(Text(printable(text)))


def page_content(page: "Page") -> dict[str, Any]:
    """Every table and sentence of a page, as plain data."""
    return {
        "title": page.title,
        "sentences": [*page.lead, page.notice],
        "tables": {
            each.key: each.to_dict() for section in page.sections for each in section.tables
        },
    }


def _show_done(what: str, seconds: float | None) -> None:
    line = Text("✓ ", style="green").append(printable(what), style="default")
    took = "" if seconds is None else f"  {seconds:.1f} s"
    err().print(line.append(took, style="dim"))
