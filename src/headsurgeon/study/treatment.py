"""What is done to a model for a cell, up to the end of training; the search of rates does the same.

Cells and searches go one way, so that a rate is chosen under the terms that it is used under.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import Windows
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.heads import HeadId
from headsurgeon.operation import Learner
from headsurgeon.planning import Plan
from headsurgeon.study.heads import heads_of
from headsurgeon.study.material import (
    anchor_text,
    calibration_text,
    load_model,
    probe_texts,
    training_text,
)
from headsurgeon.study.results import PLAN, Cell, diagnosis_file
from headsurgeon.study.spec import Study
from headsurgeon.study.start import start_arm
from headsurgeon.training import Run, TrainSettings, train
from headsurgeon.training.session import OnStep


@dataclass(frozen=True, eq=False)
class OpenCell:
    """A cell whose arm has started: what is trained lies open in the model.

    Attributes:
        cell: the cell.
        heads: the heads that are operated on.
        learner: what is trained, or would be.
        tokenizer: of its model.
    """

    cell: Cell
    heads: tuple[HeadId, ...]
    learner: Learner
    tokenizer: PreTrainedTokenizerBase


def heads_of_cell(study: Study, folder: Path, cell: Cell) -> tuple[HeadId, ...]:
    """The heads that a cell of a prepared study is about; raises as `heads_of`."""
    diagnoses = [Diagnosis.load(diagnosis_file(folder, name)) for name in study.diagnosed]
    return heads_of(study.arm(cell.arm), Plan.load(folder / PLAN), diagnoses, cell.seed or 0)


def open_cell(study: Study, folder: Path, cell: Cell, device: str) -> OpenCell:
    """Loads the arm's model and starts its heads; raises as `headsurgeon.operate`."""
    model, tokenizer = load_model(study, study.arm(cell.arm).model, device)
    heads = heads_of_cell(study, folder, cell)
    return OpenCell(cell, heads, _started(study, folder, cell, heads, model, tokenizer), tokenizer)


def _started(
    study: Study,
    folder: Path,
    cell: Cell,
    heads: Sequence[HeadId],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> Learner:
    arm = study.arm(cell.arm)
    calibration: Windows | None = None
    if arm.calibration:
        name = cell.text or study.train_on[0]
        calibration = calibration_text(study, arm, name, tokenizer)
    plan = Plan.load(folder / PLAN)
    return start_arm(arm, model, plan, heads, cell.seed or 0, calibration, study)


def train_cell(
    study: Study,
    opened: OpenCell,
    output: Path,
    rate: float | None,
    on_step: OnStep | None = None,
) -> tuple[Run, TrainSettings]:
    """Trains what lies open at a learning rate, or at the arm's own; raises as `headsurgeon.train`.

    A run that lies in `output` is resumed.
    """
    cell, tokenizer = opened.cell, opened.tokenizer
    arm = study.arm(cell.arm)
    settings = study.settings(arm, cell.seed or 0, rate, opened.learner.calibration_tokens)
    train_windows, dev = training_text(study, arm, cell.text, tokenizer, settings)
    run = train(
        opened.learner,
        train_windows,
        dev,
        output=output,
        settings=settings,
        probes=probe_texts(study, tokenizer),
        anchor=anchor_text(study, arm, tokenizer, settings),
        on_step=on_step,
    )
    return run, settings
