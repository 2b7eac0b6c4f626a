"""What a study leaves behind: typed files, and where in its folder each of them lies. No torch."""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import Field

from headsurgeon.errors import OutputError, StudyError
from headsurgeon.results import Result
from headsurgeon.study.cell_parts import HeadTable, Recovered, Scored, Trained
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.spec import Study

STUDY = "study.yaml"
PREPARED = "prepared.json"
PLAN = "plan.yaml"
CELLS = "cells"
RATES = "rates"
CELL = "cell.json"
RATE = "rate.json"

Loaded = TypeVar("Loaded", bound="Keyed")


class Cell(NamedTuple):
    """One trained model of a study, or an untrained one where text and seed say nothing.

    Attributes:
        arm: name of the arm.
        text: name of the text it is trained on; empty where it is not trained.
        seed: of start and training; None where nothing is drawn.
    """

    arm: str
    text: str = ""
    seed: int | None = None

    def __str__(self) -> str:
        seed = "" if self.seed is None else str(self.seed)
        # no name of an arm or text holds a hyphen
        return "-".join(part for part in (self.arm, self.text, seed) if part)


class StudyFile(Result):
    """A file of a study's folder, which the study can make again."""

    remedy: ClassVar[str] = "remove it, and the study makes it again"


class Keyed(StudyFile):
    """A result, which stands for the same settings, versions and text alone."""

    key: str

    @classmethod
    def load_for(cls: type[Loaded], path: Path, key: str) -> Loaded:
        """Reads the result of that key; see `headsurgeon.study.keys`.

        Raises:
            StudyError: it is another key's.
            InputError: as for `load`.
        """
        result = cls.load(path)
        if result.key != key:
            raise StudyError(
                f"{path} is of other settings, versions or text than this study's; choose another "
                f"folder, or {cls.remedy}"
            )
        return result


class Prepared(StudyFile):
    """What all cells of a study have in common; `prepared.json`.

    Attributes:
        model, twin: SHA-256 over all weights.
        windows: by text, SHA-256 of its test windows' tokens.
        plan: SHA-256 of the plan file.
        versions: of the libraries that figures depend on.
        device: kind of device that the models run on.
        planted: whether the collapse of the model is known to have been planted.
    """

    kind: ClassVar[str] = "prepared"

    model: str
    twin: str | None
    windows: dict[str, str]
    plan: str
    versions: dict[str, str]
    device: str
    planted: bool


class RateResult(Keyed):
    """What a search for the learning rate of an arm found; `rate.json`.

    Attributes:
        key: SHA-256 of all that decides it.
        arm, text, seed: what was trained for it.
        losses: best loss on dev text by rate, nats per token; None where training diverged.
        chosen: the rate of the lowest.
    """

    kind: ClassVar[str] = "rate"

    arm: str
    text: str
    seed: int
    losses: dict[str, float | None]
    chosen: float


class CellResult(Keyed):
    """What one cell came to, `cell.json`; all figures are those of the merged model.

    Attributes:
        key: SHA-256 of all that decides the result; see `headsurgeon.study.keys`.
        arm, text, seed: the cell.
        status: `done`, or `failed`, and why in `failure`.
        environment: versions and device it ran under.
        seconds: wall time.
        scored: losses by text.
        heads: statistics by text.
        operated: the heads of its plan.
        drift: by text, what happened to the heads nobody touched; see `headsurgeon.Drift`.
        recovery: where heads were operated on.
        trained: where anything was trained.
        patch: file of the trained slices, beside this one.
    """

    kind: ClassVar[str] = "cell"

    arm: str
    text: str
    seed: int | None
    status: Literal["done", "failed"]
    failure: str = ""
    environment: dict[str, str]
    seconds: float
    scored: dict[str, Scored] = Field(default_factory=dict)
    heads: dict[str, HeadTable] = Field(default_factory=dict)
    operated: tuple[str, ...] = ()
    drift: dict[str, dict[str, Any]] = Field(default_factory=dict)
    recovery: Recovered | None = None
    trained: Trained | None = None
    patch: str | None = None

    @property
    def cell(self) -> Cell:
        """Which cell it is."""
        return Cell(self.arm, self.text, self.seed)


class StudyResults(NamedTuple):
    """What is in a study's folder.

    Attributes:
        folder: the folder.
        study: the study.
        cells: what is done or failed, in the study's order.
        missing: what is neither.
    """

    folder: Path
    study: Study
    cells: tuple[CellResult, ...]
    missing: tuple[Cell, ...]

    def of(self, arm: str, text: str = "") -> list[CellResult]:
        """The finished cells of an arm, by seed; `text` is the one trained on.

        What is not trained, or has no seed, stands for every text and seed.
        """
        return [
            result
            for result in self.cells
            if result.status == "done" and result.arm == arm and result.text in ("", text)
        ]

    @property
    def failed(self) -> tuple[CellResult, ...]:
        """The cells that failed."""
        return tuple(result for result in self.cells if result.status == "failed")


def untrained_file(folder: Path, key: str) -> Path:
    """Where the statistics of heads that were reinitialised and not trained lie."""
    return folder / f"untrained-{key[:12]}.json"


def cells_of(study: Study) -> tuple[Cell, ...]:
    """Every cell of a study: arms in order, of each the texts and seeds that matter to it."""
    cells = []
    for arm in study.every_arm:
        texts = study.train_on if arm.trains else ("",)
        cells += [Cell(arm.name, text, seed) for text in texts for seed in study.seeds_of(arm)]
    return tuple(cells)


def folder_of(folder: Path, cell: Cell) -> Path:
    """Where a cell's files lie."""
    return folder / CELLS / str(cell)


def cell_file(folder: Path, cell: Cell) -> Path:
    """Where its result lies: it is there = the cell is done, or has failed."""
    return folder_of(folder, cell) / CELL


def rates_folder(folder: Path, arm: str, text: str) -> Path:
    """Where the search for an arm's learning rate on one training text lies, a run per rate."""
    return folder / RATES / f"{arm}-{text}"


def rate_run(folder: Path, arm: str, text: str, rate: float) -> Path:
    """Where the search's run at one rate lies, until the cell of the same treatment takes it."""
    return rates_folder(folder, arm, text) / f"{rate:g}"


def rate_file(folder: Path, arm: str, text: str) -> Path:
    """Where the search's result lies."""
    return rates_folder(folder, arm, text) / RATE


def diagnosis_file(folder: Path, text: str) -> Path:
    """Where the diagnosis of one text lies."""
    return folder / f"diagnosis-{text}.json"


def stock_file(folder: Path, text: str) -> Path:
    """Where the untouched model's statistics on test windows of one text lie."""
    return folder / f"untouched-{text}.json"


def load_results(folder: Path | str) -> StudyResults:
    """Reads a study's folder, finished or not.

    Raises:
        StudyError: no study lies there, or its file is not one.
        InputError: a cell's file is of another kind, another cell's, or damaged.
    """
    folder = Path(folder)
    if not (folder / STUDY).is_file():
        raise StudyError(
            f"{folder}: no study lies there (no {STUDY} in it); name the folder that `study` wrote"
        )
    study = Study.load(folder / STUDY)
    done, missing = [], []
    for cell in cells_of(study):
        path = cell_file(folder, cell)
        if path.exists():
            done.append(_of_study(study, cell, CellResult.load(path), path))
        else:
            missing.append(cell)
    return StudyResults(folder, study, tuple(done), tuple(missing))


def _of_study(study: Study, cell: Cell, result: CellResult, path: Path) -> CellResult:
    """The result, if it is of this cell and, unless it failed, of every text of the study."""
    texts = {text.name for text in study.texts}
    known = {*result.scored, *result.heads, *result.drift}
    complete = result.status == "failed" or texts == set(result.scored) == set(result.heads)
    if result.cell != cell or not known <= texts or not complete:
        raise OutputError(
            f"{path}: expected the cell {cell} on the texts {', '.join(sorted(texts))}, found "
            f"{result.cell} on {', '.join(sorted(known)) or 'none'}; remove it, and the cell is "
            "computed again"
        )
    return result


def untouched(results: StudyResults) -> CellResult:
    """The untouched model's cell.

    Raises:
        OutputError: the study has not been prepared.
    """
    cells = results.of(UNTOUCHED)
    if not cells:
        raise OutputError(f"{results.folder}: the untouched model has not been scored yet")
    return cells[0]
