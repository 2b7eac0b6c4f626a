"""A cell whose arm takes several passes: one operation after the other, and all of them as one."""

from pathlib import Path

from headsurgeon.data import Windows, equal_parts
from headsurgeon.errors import StudyError
from headsurgeon.operation import Patient, apply_patch
from headsurgeon.passes import run_passes
from headsurgeon.study.cell_parts import Trained
from headsurgeon.study.material import (
    anchor_text,
    diagnosed_windows,
    first_of,
    probe_texts,
    training_text,
)
from headsurgeon.study.spec import Study
from headsurgeon.study.treatment import OpenCell
from headsurgeon.training import Run, read_log


def train_in_passes(
    study: Study, opened: OpenCell, output: Path, rate: float | None
) -> tuple[Patient, Trained]:
    """Operates as often as the arm says; every pass trains on the arm's budget.

    The first pass carries out the study's plan, later ones what the arm's `next_rule` finds.

    Args:
        opened: the cell, its arm started; the model is taken back to what it was untouched.
        output: the cell's folder; a sequence that lies there is resumed.
        rate: the arm's learning rate, where it was searched for.

    Returns:
        The model with all passes as one patient, merged, and how they were trained: steps and
        tokens of all of them together, the best and the kept step of the last.

    Raises:
        StudyError: what is diagnosed are texts of several lengths.
        SettingsError, OutputError, Interrupted: as `headsurgeon.run_passes`.
    """
    patient, arm, cell = opened.learner, study.arm(opened.cell.arm), opened.cell
    assert isinstance(patient, Patient)
    model = patient.model
    patient.revert()
    settings = study.settings(arm, cell.seed or 0, rate)
    train_windows, dev = training_text(study, arm, cell.text, opened.tokenizer, settings)
    result = run_passes(
        model,
        train_windows,
        dev,
        output=output,
        settings=settings,
        passes=arm.passes,
        rules=(patient.plan.replace(seed=cell.seed or 0), arm.next_rule),
        diagnosed=_diagnosed(study, opened),
        thresholds=study.plan.limits,
        probes=probe_texts(study, opened.tokenizer),
        anchor=anchor_text(study, arm, opened.tokenizer, settings),
    )
    patient = apply_patch(model, output / str(result.patch))
    runs = [Run.load(output / each.folder) for each in result.passes]
    last = result.passes[-1]
    return patient, Trained(
        settings=settings.model_dump(mode="json"),
        learning_rate=settings.learning_rate,
        parameters=sum(part.numel() for part in patient.trainable().values()),
        calibration_tokens=0,
        curve=_curve(runs),
        steps=sum(each.steps for each in result.passes),
        tokens=sum(each.tokens for each in result.passes),
        anchor_tokens=sum(run.anchor_tokens for run in runs),
        best_step=last.kept_step,
        best_dev_loss=last.dev_loss,
        kept_step=last.kept_step,
        kept_dev_loss=last.dev_loss,
        snapshots=(),
        passes=len(result.passes),
    )


def _diagnosed(study: Study, opened: OpenCell) -> Windows:
    name = study.diagnosed[0]
    part = diagnosed_windows(study, name, opened.tokenizer, study.windows.diagnose)
    lengths = equal_parts(first_of(part, study.windows.diagnose))
    if len(lengths) > 1:
        raise StudyError(
            f"arm {opened.cell.arm}: every pass is diagnosed on {name}, which has texts of "
            f"{len(lengths)} lengths; several passes need one text, or windows"
        )
    return lengths[0]


def _curve(runs: list[Run]) -> tuple[tuple[int, float], ...]:
    """Tokens read since the first pass began, and dev loss, at every evaluation."""
    points: list[tuple[int, float]] = []
    for run in runs:
        before = points[-1][0] if points else 0
        points += [(before + tokens, loss) for tokens, loss in read_log(run)]
    return tuple(points)
