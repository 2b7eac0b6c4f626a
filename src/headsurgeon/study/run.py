"""Running a study: prepare once, then every cell that is not done, then what it all came to."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from headsurgeon.arguments import checked
from headsurgeon.errors import StudyError
from headsurgeon.files import write_text
from headsurgeon.folders import locked
from headsurgeon.study.conclusion import StudyResult, conclude
from headsurgeon.study.engines import Task, run_tasks
from headsurgeon.study.keys import key_of
from headsurgeon.study.material import threads
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.prepare import prepare
from headsurgeon.study.results import (
    STUDY,
    Cell,
    CellResult,
    Prepared,
    cell_file,
    cells_of,
    rate_file,
)
from headsurgeon.study.spec import Study
from headsurgeon.study.start import check_starts
from headsurgeon.study.untrained import first_of_each


@runtime_checkable
class Observer(Protocol):
    """Callbacks that follow the progress of a study."""

    def prepared(self, what: str, windows: int | None) -> None:
        """A step of the preparation begins, which reads about so many windows; None: unknown."""

    def read(self, windows: int) -> None:
        """So many more were read."""

    def planned(self, todo: int, done: int) -> None:
        """So many tasks are to be done, so many have been done before."""

    def finished(self, task: Task) -> None:
        """A task is done, or has failed and said so in its file."""


class Silent:
    """An observer who tells nobody."""

    def prepared(self, what: str, windows: int | None) -> None:
        """Nothing."""

    def read(self, windows: int) -> None:
        """Nothing."""

    def planned(self, todo: int, done: int) -> None:
        """Nothing."""

    def finished(self, task: Task) -> None:
        """Nothing."""


@checked
def run_study(
    study: Study | str | Path,
    output: Path | str,
    *,
    engine: str = "local",
    jobs: int = 1,
    device: str = "cpu",
    options: dict[str, Any] | None = None,
    observer: Observer | None = None,
) -> StudyResult:
    """Runs every cell that is not done yet; the same call resumes what was interrupted.

    Args:
        study: the study, its file, or the name of a preset.
        output: folder; see `docs/studies.md` for what lies in it.
        engine, jobs, device, options: where cells run, see `headsurgeon.study.engines`.
        observer: who is told.

    Raises:
        StudyError: a faulty study, or the folder holds another one.
        OutputError: the folder holds something else, or another process works there.
        PlanError: no head to operate on.
        Interrupted: stopped by the user.
    """
    if not isinstance(study, Study):
        study = Study.load(study)
    check_starts(study)
    telling = observer or Silent()
    with locked(output, STUDY) as folder:
        _claim(study, folder)
        with threads(study.threads):
            prepared = prepare(study, folder, device, telling.prepared, telling.read)
        searches = [
            Task(Cell(arm.name, text), "rates")
            for arm in study.every_arm
            if arm.rates
            for text in study.train_on
        ]
        cells = [Task(cell) for cell in cells_of(study)]
        todo = [task for task in (*searches, *cells) if not _done(study, prepared, folder, task)]
        left = [task.cell for task in todo if task.what == "cell"]
        nulls = [
            Task(cell, "untrained heads") for cell in first_of_each(study, prepared, folder, left)
        ]
        telling.planned(len(todo) + len(nulls), len(searches) + len(cells) - len(todo))
        untouched = Task(Cell(UNTOUCHED))
        # a cell needs the rate of its arm and the untouched model's scores; of untrained heads it
        # makes use if they are there when it has been trained, and measures them if not
        waves = (
            [task for task in todo if task.what == "rates"],
            [task for task in todo if task == untouched],
            [*nulls, *(task for task in todo if task.what == "cell" and task != untouched)],
        )
        for tasks in waves:
            run_tasks(
                engine,
                folder,
                tasks,
                telling.finished,
                jobs=jobs,
                device=device,
                options=options,
            )
        return conclude(folder)


def _claim(study: Study, folder: Path) -> None:
    """Writes the study's file, or accepts the same study; one that only grew may take its place.

    Raises:
        StudyError: another study lies there.
    """
    path = folder / STUDY
    if path.exists():
        there = Study.load(path)
        if there == study:
            return
        fixed = (
            *("model", "twin", "texts", "train_on", "plan", "windows", "dtype", "threads"),
            "probes",
        )
        differing = [name for name in fixed if getattr(there, name) != getattr(study, name)]
        if differing:
            raise StudyError(
                f"{folder} holds another study ({there.name}): {', '.join(differing)} differ; "
                "choose another folder"
            )
    write_text(path, study.to_yaml())


def _done(study: Study, prepared: Prepared, folder: Path, task: Task) -> bool:
    if task.what == "rates":
        return rate_file(folder, task.cell.arm, task.cell.text).exists()
    path = cell_file(folder, task.cell)
    if not path.exists():
        return False
    result = CellResult.load(path)
    # one of other settings is refused by `run_cell`, in words; one that failed is tried again
    return result.status == "done" and result.key == key_of(study, prepared, task.cell)
