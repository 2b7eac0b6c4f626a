"""`headsurgeon study`: runs a study, or resumes it, and says what it came to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from headsurgeon.cli.console import err, heading, out, table
from headsurgeon.cli.loading import quieten
from headsurgeon.errors import OperationError, SettingsError
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from headsurgeon.report import Table
    from headsurgeon.study import StudyResult
    from headsurgeon.study.engines import Task


def study(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study.yaml, or a preset: see --list.")
    ] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder; one that holds the same study is resumed.",
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "slurm", "ray"],
        typer.Option(help="Where cells run: here, under Slurm (submitit), or on Ray."),
    ] = "local",
    jobs: Annotated[int, typer.Option(min=1, help="Cells at once.")] = 1,
    device: Annotated[
        str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the models run.")
    ] = "cpu",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Something the engine is told, such as partition=gpu."
        ),
    ] = None,
    presets: Annotated[bool, typer.Option("--list", help="Name the presets and end.")] = False,
) -> None:
    """Runs arms × texts × seeds: the paper's method, controls and rivals, with intervals.

    Cells that are done are not run again. Afterwards DIR holds study.html, study.json and figures.
    """
    from headsurgeon.study import PRESETS, Study

    if presets:
        for name in sorted(PRESETS):
            out().print(Text(f"{name:<16}").append(Study.load(name).about, style="dim"))
        return
    if not study or output is None:
        raise SettingsError("expected a STUDY and --output DIR; --list names the presets")
    loaded = Study.load(study)
    quieten()
    result = run_and_show(loaded, output, engine, jobs, device, _options(option or []))
    if result.results.failed:
        names = ", ".join(str(cell.cell) for cell in result.results.failed)
        raise OperationError(
            f"{len(result.results.failed)} cells failed ({names}); their cell.json says why, and "
            "the same command tries them again"
        )


def run_and_show(
    study: object,
    output: Path,
    engine: str,
    jobs: int,
    device: str,
    options: dict[str, str | int],
) -> "StudyResult":
    """Runs a study with a bar, writes its page, and prints tables and answers."""
    from headsurgeon.report.study_page import conclusions, lead, per_text, write_report
    from headsurgeon.study import Study, run_study

    assert isinstance(study, Study)
    with _bar() as progress:
        result = run_study(
            study,
            output,
            engine=engine,
            jobs=jobs,
            device=device,
            options=options,
            observer=Bar(progress),
        )
    page = write_report(result.folder)
    console = out()
    for text in study.train_on:
        for each in per_text(result, text):
            show(each)
    for each in conclusions(result):
        show(each)
    for said in lead(result):
        console.print()
        console.print(Text(printable(said)))
    console.print()
    console.print(Text(f"written to {result.folder}: {page.name}, study.json, figures/, cells/"))
    return result


class Bar:
    """Shows how a study gets on."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("preparing", total=None)

    def prepared(self, what: str) -> None:
        """A step of the preparation begins."""
        self.progress.update(self.task, description=printable(what))

    def planned(self, todo: int, done: int) -> None:
        """So many tasks are to be done."""
        self.progress.update(self.task, description="cells", total=todo + done, completed=done)

    def finished(self, task: "Task") -> None:
        """One more is done."""
        self.progress.update(self.task, advance=1, description=printable(f"{task} done"))


def show(each: "Table") -> None:
    """Prints a table and the note below it."""
    console = out()
    console.print()
    console.print(heading(each.title))
    console.print(table(each.columns, each.rows))
    if each.note:
        console.print(Text(each.note, style="dim"))


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err(),
        transient=True,
    )


def _options(given: list[str]) -> dict[str, str | int]:
    options: dict[str, str | int] = {}
    for each in given:
        name, sign, value = each.partition("=")
        if not sign or not name:
            raise SettingsError(f"--option: expected NAME=VALUE, got {each!r}")
        options[name] = int(value) if value.isdecimal() else value
    return options
