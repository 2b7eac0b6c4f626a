"""One cell of a study, from loading the model to `cell.json`; cells share the folder alone."""

import time
import traceback
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from headsurgeon.data import Windows
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import HeadsurgeonError, Interrupted, StudyError
from headsurgeon.evaluation import (
    Ablation,
    StatsAndAblation,
    ablate,
    drift,
    empirical_null,
    recovery_from,
)
from headsurgeon.files import header
from headsurgeon.operation import Learner, Patient
from headsurgeon.planning import Plan
from headsurgeon.scores import difference
from headsurgeon.study.heads import heads_of
from headsurgeon.study.material import (
    anchor_text,
    dev_windows,
    load_model,
    scored_windows,
    threads,
    training_text,
)
from headsurgeon.study.parts import UNTOUCHED, Arm
from headsurgeon.study.prepare import Prepared, diagnosis_file, hash_of, key_of, stock_file
from headsurgeon.study.rates import chosen_rate
from headsurgeon.study.results import (
    CELL,
    PLAN,
    STUDY,
    Cell,
    CellResult,
    Recovered,
    Scored,
    Trained,
    folder_of,
)
from headsurgeon.study.scoring import Scores, score
from headsurgeon.study.spec import Study
from headsurgeon.study.start import start_arm
from headsurgeon.training import read_log, train
from headsurgeon.training.session import OnStep

# unlike any seed that a study is likely to have
FIRST_NULL_SEED = 101
# what a cell keeps of it; the changes of single heads follow from the statistics
DRIFT = {"threshold", "zones", "drifted", "could_drift", "transitions"}
# of each probe text, at every evaluation of a run
PROBE_WINDOWS = 8


def run_cell(folder: Path, cell: Cell, device: str, on_step: OnStep | None = None) -> CellResult:
    """Computes a cell, or reads what it came to before.

    A fault of the arm (a start that does not fit the model, a loss that is no number) makes a
    failed cell with the words of the error; the other cells go their way.

    Raises:
        Interrupted: stopped by the user; the same call resumes its training.
        StudyError: the cell's file is of another study, or the text has changed meanwhile.
    """
    study, prepared = Study.load(folder / STUDY), Prepared.load(folder)
    place, key = folder_of(folder, cell), key_of(study, prepared, cell)
    if (place / CELL).exists():
        done = CellResult.load(place)
        if done.key != key:
            raise StudyError(
                f"{place / CELL} is of other settings, versions or text than this study's; choose "
                "another folder, or remove it and it is computed again"
            )
        if done.status == "done":
            return done
        (place / CELL).unlink()
    place.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    status: dict[str, Any]
    try:
        with threads(study.threads):
            status = {"status": "done", **_computed(study, folder, cell, device, on_step)}
    except (Interrupted, StudyError):
        raise
    except Exception as error:
        words = str(error) if isinstance(error, HeadsurgeonError) else traceback.format_exc()
        status = {"status": "failed", "error": words}
    result = CellResult(
        **header("cell"),
        key=key,
        arm=cell.arm,
        text=cell.text,
        seed=cell.seed,
        environment={**prepared.versions, "device": prepared.device},
        seconds=round(time.monotonic() - started, 1),
        **status,
    )
    result.save(place)
    return result


def _computed(
    study: Study, folder: Path, cell: Cell, device: str, on_step: OnStep | None
) -> dict[str, Any]:
    """What the cell came to, as fields of `CellResult`."""
    arm, plan = study.arm(cell.arm), Plan.load(folder / PLAN)
    model, tokenizer = load_model(study, arm.model, device)
    texts = _same_texts(study, folder, tokenizer)
    diagnoses = [Diagnosis.load(diagnosis_file(folder, name)) for name in study.diagnosed]
    heads = heads_of(arm, plan, diagnoses, cell.seed or 0)
    if arm.method in ("none", "ablate"):
        scores = score(
            model, texts, heads, statistics=study.windows.statistics, modes=("zero", "mean")
        )
        if arm.method == "ablate":
            scores = _ablated(scores, arm)
        return {
            "scored": scores.scored,
            "heads": scores.heads,
            "operated": tuple(map(str, heads)),
        }
    calibration = None
    if arm.calibration:
        calibration = dev_windows(study, cell.text or study.train_on[0], tokenizer, arm.calibration)
    learner = start_arm(arm, model, plan, heads, cell.seed or 0, calibration, study)
    trained = None
    if arm.trains:
        rate = chosen_rate(folder, study, arm, cell.text)
        trained = _train(study, arm, cell, learner, tokenizer, folder, rate, on_step)
    before, nulls = _stock(study, folder, arm, learner, texts)
    learner.merge()
    scores = score(model, texts, heads, statistics=study.windows.statistics)
    found: dict[str, Any] = {
        "scored": scores.scored,
        "heads": scores.heads,
        "operated": tuple(map(str, heads)),
        "trained": trained,
        "patch": learner.file_name if trained is not None else None,
    }
    if before:
        found["drift"] = {
            name: drift(before[name].stats, scores.conditions[name].stats, learner.plan).model_dump(
                mode="json", include=DRIFT
            )
            for name in texts
        }
        found["recovery"] = _recovered(study, learner.plan, texts, before, scores, nulls)
    return found


def _same_texts(
    study: Study, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Windows]:
    """The test windows, which have to be those of the untouched model's scores."""
    texts = scored_windows(study, tokenizer)
    known = Prepared.load(folder).windows
    changed = [name for name, part in texts.items() if hash_of(part) != known.get(name)]
    if changed:
        raise StudyError(
            f"the test windows of {', '.join(changed)} are not those that {folder} was prepared "
            "with: the text, or the package it is from, has changed; begin in another folder"
        )
    return texts


def _train(
    study: Study,
    arm: Arm,
    cell: Cell,
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    rate: float | None,
    on_step: OnStep | None,
) -> Trained:
    settings = study.settings(arm, cell.seed or 0, rate)
    train_windows, dev = training_text(study, arm, cell.text, tokenizer, settings)
    run = train(
        learner,
        train_windows,
        dev,
        output=folder_of(folder, cell),
        settings=settings,
        probes={name: dev_windows(study, name, tokenizer, PROBE_WINDOWS) for name in study.probes},
        anchor=anchor_text(study, arm, tokenizer, settings),
        on_step=on_step,
    )
    return Trained(
        settings=settings.model_dump(mode="json"),
        learning_rate=settings.learning_rate,
        parameters=sum(part.numel() for part in learner.trainable().values()),
        steps=run.steps,
        tokens=run.tokens,
        calibration_tokens=getattr(learner, "calibration_tokens", 0),
        best_step=run.best_step,
        best_dev_loss=run.best_dev_loss,
        curve=tuple(read_log(run)),
    )


def _stock(
    study: Study,
    folder: Path,
    arm: Arm,
    learner: Learner,
    texts: dict[str, Windows],
) -> tuple[dict[str, StatsAndAblation], dict[str, list[Any]]]:
    """The operated heads in the untouched model, and reinitialised without training, by text.

    Of the study's own heads the first is known. Nothing of it where no heads were operated on.
    """
    if not isinstance(learner, Patient) or arm.model != "subject":
        return {}, {}
    patient = learner
    stock = CellResult.load(folder_of(folder, Cell(UNTOUCHED)))
    model = patient.model
    patient.revert()
    before = {}
    for name, windows in texts.items():
        stats = Diagnosis.load(stock_file(folder, name)).stats
        whole = stock.scored[name].evaluation(study.model)
        if arm.heads == "plan":
            less = stock.scored[name].evaluation(study.model, ablated="zero")
            ablation = Ablation(
                mode="zero",
                joint=difference(less, whole),
                singles={},
                baseline=whole,
                ablated=less,
            )
        else:
            ablation = ablate(model, patient.plan, windows, singles=False, baseline=whole)
        before[name] = StatsAndAblation(stats, ablation)
    seeds = range(FIRST_NULL_SEED, FIRST_NULL_SEED + study.null_seeds)
    measured = {name: part.take(study.windows.statistics) for name, part in texts.items()}
    nulls = {name: empirical_null(patient, part, seeds) for name, part in measured.items()}
    return before, nulls


def _recovered(
    study: Study,
    plan: Plan,
    texts: dict[str, Windows],
    before: dict[str, StatsAndAblation],
    scores: Scores,
    nulls: dict[str, list[Any]],
) -> Recovered:
    found = recovery_from(
        [before[name] for name in texts],
        [scores.conditions[name] for name in texts],
        [nulls[name] for name in texts],
        plan.operated,
        sick_mass=study.plan.sink,
    )
    names = [str(head) for head in found.heads]
    return Recovered(
        heads=tuple(names),
        left_sick=tuple(n for n, yes in zip(names, found.left_sick, strict=True) if yes),
        unlike_null=tuple(n for n, yes in zip(names, found.unlike_null, strict=True) if yes),
        functional=found.functional,
        recovered=tuple(map(str, found.recovered)),
        null_mass={name: float(m.mean()) for name, m in zip(texts, found.null, strict=True)},
    )


def _ablated(scores: Scores, arm: Arm) -> Scores:
    """The model without its heads as a model of its own, of which nothing more can be ablated."""
    scored = {
        name: Scored(
            **{
                **each.model_dump(),
                "nll": each.ablated[arm.ablation_mode],
                "ablated": {"zero": each.ablated[arm.ablation_mode]},
            }
        )
        for name, each in scores.scored.items()
    }
    return Scores(scored, scores.conditions)
