"""One cell of a study, from loading the model to `cell.json`; cells share the folder alone."""

import time
import traceback
from pathlib import Path
from typing import Any

from headsurgeon.data import Texts, Windows
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import HeadsurgeonError, Interrupted, StudyError
from headsurgeon.evaluation import (
    Ablation,
    StatsAndAblation,
    ablate,
    drift,
    recovery_from,
)
from headsurgeon.operation import Learner
from headsurgeon.planning import Plan
from headsurgeon.scores import difference
from headsurgeon.study.cell_parts import Recovered, Trained
from headsurgeon.study.kept_attention import keep_attention
from headsurgeon.study.keys import key_of
from headsurgeon.study.material import checked_windows, load_model, threads
from headsurgeon.study.parts import UNTOUCHED, Arm
from headsurgeon.study.rates import chosen_rate, searched
from headsurgeon.study.results import (
    PREPARED,
    STUDY,
    Cell,
    CellResult,
    Prepared,
    cell_file,
    folder_of,
    rate_run,
    stock_file,
)
from headsurgeon.study.scoring import Scores, score
from headsurgeon.study.several_passes import train_in_passes
from headsurgeon.study.spec import Study
from headsurgeon.study.treatment import OpenCell, heads_of_cell, open_cell, train_cell
from headsurgeon.study.untrained import ByText, untrained_heads
from headsurgeon.training import read_log
from headsurgeon.training.run_file import RUN_NAME
from headsurgeon.training.session import OnStep

# what a cell keeps of it; the changes of single heads follow from the statistics
DRIFT = {"threshold", "zones", "drifted", "could_drift", "transitions"}


def run_cell(folder: Path, cell: Cell, device: str, on_step: OnStep | None = None) -> CellResult:
    """Computes a cell, or reads what it came to before.

    A fault of the arm (a start that does not fit the model, a loss that is no number) makes a
    failed cell with the words of the error; the other cells go their way.

    Raises:
        Interrupted: stopped by the user; the same call resumes its training.
        StudyError: the cell's file is of another study, or the text has changed meanwhile.
    """
    study, prepared = Study.load(folder / STUDY), Prepared.load(folder / PREPARED)
    path, key = cell_file(folder, cell), key_of(study, prepared, cell)
    if path.exists():
        done = CellResult.load_for(path, key)
        if done.status == "done":
            _check_budget(study, done, path)
            return done
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    status: dict[str, Any]
    try:
        with threads(study.threads):
            status = {"status": "done", **_computed(study, prepared, folder, cell, device, on_step)}
    except (Interrupted, StudyError):
        raise
    except Exception as error:
        words = str(error) if isinstance(error, HeadsurgeonError) else traceback.format_exc()
        status = {"status": "failed", "failure": words}
    result = CellResult(
        key=key,
        arm=cell.arm,
        text=cell.text,
        seed=cell.seed,
        environment={**prepared.versions, "device": prepared.device},
        seconds=round(time.monotonic() - started, 1),
        **status,
    )
    result.save(path)
    return result


def _check_budget(study: Study, done: CellResult, path: Path) -> None:
    """Refuses a cell that paid for more than its start looked at, as in earlier versions."""
    if done.trained is None:
        return
    looked_at, arm = done.trained.calibration_tokens, study.arm(done.arm)
    budget = study.settings(arm, done.seed or 0, looked_at=looked_at).max_tokens
    if done.trained.settings["max_tokens"] != budget:
        raise StudyError(
            f"{path}: after the {looked_at:,} tokens that its start looked at the budget leaves "
            f"{budget:,}, and it was trained on {done.trained.settings['max_tokens']:,}; remove it "
            "to have it run again"
        )


def _computed(
    study: Study,
    prepared: Prepared,
    folder: Path,
    cell: Cell,
    device: str,
    on_step: OnStep | None,
) -> dict[str, Any]:
    """What the cell came to, as fields of `CellResult`."""
    arm = study.arm(cell.arm)
    if arm.method in ("none", "ablate"):
        return _as_it_is(study, prepared, folder, cell, device)
    opened = open_cell(study, folder, cell, device)
    heads, learner = opened.heads, opened.learner
    texts = checked_windows(study, prepared, opened.tokenizer)
    trained = None
    if arm.passes > 1:
        rate = chosen_rate(folder, study, arm, cell.text)
        learner, trained = train_in_passes(study, opened, folder_of(folder, cell), rate)
        heads = learner.plan.operated
    elif arm.trains:
        trained = _trained(study, folder, opened, on_step)
    before, nulls = _stock(study, prepared, folder, arm, learner, texts)
    learner.merge()
    keep_attention(learner.model, opened.tokenizer, study, texts, cell, heads, folder)
    scores = score(learner.model, texts, heads, statistics=study.windows.statistics)
    result: dict[str, Any] = {
        "scored": scores.scored,
        "heads": scores.heads,
        "operated": tuple(map(str, heads)),
        "trained": trained,
        "patch": learner.file_name if trained is not None else None,
    }
    if before and arm.method == "slices":
        result["drift"] = {
            name: drift(before[name].stats, scores.conditions[name].stats, learner.plan).model_dump(
                mode="json", include=DRIFT
            )
            for name in texts
        }
    if before:
        result["recovery"] = _recovered(study, learner.plan, texts, before, scores, nulls)
    return result


def _as_it_is(
    study: Study, prepared: Prepared, folder: Path, cell: Cell, device: str
) -> dict[str, Any]:
    """The same of a model that nothing is done to, with its heads or without them."""
    arm = study.arm(cell.arm)
    heads = heads_of_cell(study, folder, cell)
    if arm.method == "ablate" and (arm.model, arm.heads) == ("subject", "plan"):
        # the untouched model has been scored without these heads already
        stock = _untouched(folder)
        scored, tables = stock.scored, stock.heads
    else:
        model, tokenizer = load_model(study, arm.model, device)
        texts = checked_windows(study, prepared, tokenizer)
        statistics = study.windows.statistics
        keep_attention(model, tokenizer, study, texts, cell, heads, folder)
        scores = score(model, texts, heads, statistics=statistics, modes=("zero", "mean"))
        scored, tables = scores.scored, scores.heads
    if arm.method == "ablate":
        scored = {name: each.without_heads(arm.ablation_mode) for name, each in scored.items()}
    return {"scored": scored, "heads": tables, "operated": tuple(map(str, heads))}


def _untouched(folder: Path) -> CellResult:
    return CellResult.load(cell_file(folder, Cell(UNTOUCHED)))


def _trained(study: Study, folder: Path, opened: OpenCell, on_step: OnStep | None) -> Trained:
    cell, learner = opened.cell, opened.learner
    rate = chosen_rate(folder, study, study.arm(cell.arm), cell.text)
    place = folder_of(folder, cell)
    if rate is not None and cell == searched(study, cell.arm, cell.text):
        _take(rate_run(folder, cell.arm, cell.text, rate), place)
    run, settings = train_cell(study, opened, place, rate, on_step)
    return Trained(
        settings=settings.model_dump(mode="json"),
        learning_rate=settings.learning_rate,
        parameters=sum(part.numel() for part in learner.trainable().values()),
        calibration_tokens=learner.calibration_tokens,
        curve=tuple(read_log(run)),
        **run.figures(),
    )


def _take(run: Path, place: Path) -> None:
    """Moves the run of a search into the folder of the cell that would train the same again.

    Whether it is the same the training itself checks, and then finds that all of it is done.
    """
    if (run / RUN_NAME).exists() and not any(place.iterdir()):
        place.rmdir()
        run.rename(place)


def _stock(
    study: Study,
    prepared: Prepared,
    folder: Path,
    arm: Arm,
    learner: Learner,
    texts: dict[str, Windows | Texts],
) -> tuple[dict[str, StatsAndAblation], ByText]:
    """The operated heads in the untouched model, and reinitialised without training, by text.

    Of the study's own heads the first is known. Nothing of it where no heads were operated on.
    """
    if not arm.operates or arm.model != "subject":
        return {}, {}
    stock = _untouched(folder)
    model = learner.model
    learner.revert()
    before = {}
    for name, windows in texts.items():
        stats = Diagnosis.load(stock_file(folder, name)).stats
        untouched_loss = stock.scored[name].evaluation(study.model)
        if tuple(map(str, learner.plan.operated)) == stock.operated:
            less = stock.scored[name].evaluation(study.model, ablated="zero")
            ablation = Ablation(
                mode="zero",
                joint=difference(less, untouched_loss),
                singles={},
                baseline=untouched_loss,
                ablated=less,
            )
        else:
            ablation = ablate(model, learner.plan, windows, singles=False, baseline=untouched_loss)
        before[name] = StatsAndAblation(stats, ablation)
    return before, untrained_heads(study, prepared, folder, model, learner.plan, texts)


def _recovered(
    study: Study,
    plan: Plan,
    texts: dict[str, Windows | Texts],
    before: dict[str, StatsAndAblation],
    scores: Scores,
    nulls: ByText,
) -> Recovered:
    recovery = recovery_from(
        [before[name] for name in texts],
        [scores.conditions[name] for name in texts],
        [nulls[name] for name in texts],
        plan.operated,
        sick_mass=study.plan.sink,
    )
    names = [str(head) for head in recovery.heads]
    return Recovered(
        heads=tuple(names),
        left_sick=tuple(n for n, yes in zip(names, recovery.left_sick, strict=True) if yes),
        unlike_null=tuple(n for n, yes in zip(names, recovery.unlike_null, strict=True) if yes),
        functional=recovery.functional,
        recovered=tuple(map(str, recovery.recovered)),
        null_mass={name: float(m.mean()) for name, m in zip(texts, recovery.null, strict=True)},
    )
