"""What a study leaves behind: one file per cell, typed, and the folder they lie in. No torch."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headsurgeon.attention_kinds import AttentionRan
from headsurgeon.errors import OutputError
from headsurgeon.files import header, read_json, write_json
from headsurgeon.scores import Evaluation
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.spec import Study

STUDY = "study.yaml"
PREPARED = "prepared.json"
PLAN = "plan.yaml"
CELLS = "cells"
RATES = "rates"
CELL = "cell.json"
RATE = "rate.json"


class Record(BaseModel):
    """A part of a result file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Scored(Record):
    """Losses of one model on the test windows of one text, summed over each document.

    Attributes:
        corpus, split, length, stride, corpus_hash, count, first_token, windows_seed: the windows.
        attention: which attention ran.
        documents: ids.
        tokens: predicted tokens of each document.
        nll: its negative log-likelihood, nats.
        ablated: the same with the planned heads ablated, by mode (`zero`, `mean`).
    """

    corpus: str
    split: str
    length: int
    stride: int
    corpus_hash: str
    count: int
    first_token: str
    windows_seed: int
    attention: AttentionRan
    documents: tuple[str, ...]
    tokens: tuple[float, ...]
    nll: tuple[float, ...]
    ablated: dict[str, tuple[float, ...]] = Field(default_factory=dict)

    @classmethod
    def of(cls, whole: Evaluation, ablated: dict[str, Evaluation]) -> "Scored":
        """An evaluation, and those of the same windows with heads ablated."""
        return cls(
            corpus=whole.corpus,
            split=whole.split,
            length=whole.length,
            stride=whole.stride,
            corpus_hash=whole.corpus_hash,
            count=whole.count,
            first_token=whole.first_token,
            windows_seed=whole.seed,
            attention=whole.attention,
            documents=whole.documents,
            tokens=tuple(whole.document_tokens.tolist()),
            nll=tuple(whole.document_nll.tolist()),
            ablated={mode: tuple(e.document_nll.tolist()) for mode, e in ablated.items()},
        )

    def evaluation(self, model: str, ablated: str | None = None) -> Evaluation:
        """As an evaluation of `model`; with `ablated` that of the mode."""
        return Evaluation(
            model=model,
            corpus=self.corpus,
            split=self.split,
            length=self.length,
            stride=self.stride,
            corpus_hash=self.corpus_hash,
            count=self.count,
            first_token=self.first_token,
            seed=self.windows_seed,
            documents=self.documents,
            document_nll=np.array(self.nll if ablated is None else self.ablated[ablated]),
            document_tokens=np.array(self.tokens),
            attention=self.attention,
        )


class HeadTable(Record):
    """Statistics of every head on one text, [layer][head]; None where there is no attention."""

    first_token_mass: tuple[tuple[float | None, ...], ...]
    entropy: tuple[tuple[float | None, ...], ...]
    mean_distance: tuple[tuple[float | None, ...], ...]

    def mass(self) -> np.ndarray:
        """The mass, float64 [layer, head]."""
        return np.array(self.first_token_mass, dtype=np.float64)


class Recovered(Record):
    """What the recovery rule says of a cell, see `headsurgeon.evaluation.recovery`.

    Attributes:
        heads: the operated heads.
        left_sick: of those sick before, which are sick on no text now.
        unlike_null: which differ from the same heads reinitialised and not trained, on every text.
        functional: whether ablating the set costs more than before, on every text.
        recovered: the heads for which all of it holds.
        null_mass: by text, mean mass of the untrained heads, fraction.
    """

    heads: tuple[str, ...]
    left_sick: tuple[str, ...]
    unlike_null: tuple[str, ...]
    functional: bool
    recovered: tuple[str, ...]
    null_mass: dict[str, float]


class Trained(Record):
    """How a cell was trained.

    Attributes:
        settings: the training settings, by name.
        learning_rate: the peak rate, chosen on dev text where the arm has a grid.
        parameters: trainable values.
        steps, tokens: of the whole run; `calibration_tokens` were read before it.
        best_step: whose weights are scored.
        best_dev_loss: nats per token.
        curve: tokens read and dev loss at each evaluation.
    """

    settings: dict[str, Any]
    learning_rate: float
    parameters: int
    steps: int
    tokens: int
    calibration_tokens: int
    best_step: int
    best_dev_loss: float
    curve: tuple[tuple[int, float], ...]


class CellResult(Record):
    """What one cell came to; all figures are those of the merged model.

    Attributes:
        key: SHA-256 of all that decides the result; see `headsurgeon.study.cell.key_of`.
        arm, text, seed: the cell.
        status: `done`, or `failed` with its `error`.
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

    kind: Literal["cell"] = "cell"
    schema_: int = Field(1, alias="schema")
    headsurgeon: str
    key: str
    arm: str
    text: str
    seed: int | None
    status: Literal["done", "failed"]
    error: str = ""
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

    def save(self, folder: Path) -> None:
        """Writes `cell.json` into the cell's folder, atomically: it is there = the cell is done."""
        content = self.model_dump(mode="json", by_alias=True)
        write_json(folder / CELL, {**content, **header("cell")})

    @classmethod
    def load(cls, folder: Path) -> "CellResult":
        """Reads the `cell.json` of a folder.

        Raises:
            InputError: no such file, or another kind of file, or a newer one.
            OutputError: it is damaged; names the place.
        """
        path = folder / CELL
        try:
            return cls.model_validate(read_json(path, "cell"))
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, fault["loc"]))
            raise OutputError(
                f"{path}: {place}: {fault['msg']}; the file was altered since the study wrote it: "
                "remove it, and the cell is computed again"
            ) from error


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


def cells_of(study: Study) -> tuple[Cell, ...]:
    """Every cell of a study: arms in order, of each the texts and seeds that matter to it."""
    found = []
    for arm in study.every_arm:
        texts = study.train_on if arm.trains else ("",)
        seeds: tuple[int | None, ...] = study.seeds if arm.seeded else (None,)
        found += [Cell(arm.name, text, seed) for text in texts for seed in seeds]
    return tuple(found)


def folder_of(folder: Path, cell: Cell) -> Path:
    """Where a cell's files lie."""
    return folder / CELLS / str(cell)


def load_results(folder: Path | str) -> StudyResults:
    """Reads a study's folder, finished or not.

    Raises:
        StudyError: no study lies there, or its file is not one.
        InputError, OutputError: a cell's file is of another kind, or damaged.
    """
    folder = Path(folder)
    study = Study.load(folder / STUDY)
    done, missing = [], []
    for cell in cells_of(study):
        place = folder_of(folder, cell)
        if (place / CELL).exists():
            done.append(CellResult.load(place))
        else:
            missing.append(cell)
    return StudyResults(folder, study, tuple(done), tuple(missing))


def untouched(results: StudyResults) -> CellResult:
    """The untouched model's cell.

    Raises:
        OutputError: the study has not been prepared.
    """
    found = results.of(UNTOUCHED)
    if not found:
        raise OutputError(f"{results.folder}: the untouched model has not been scored yet")
    return found[0]
