"""The demo from end to end; `demo` is the whole of it, each step a small function."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from headsurgeon.demo import tables
from headsurgeon.demo.arms import Outcome, arms, treat
from headsurgeon.demo.examination import Case, examine, find_sick
from headsurgeon.demo.journal import Journal, Observer
from headsurgeon.demo.judgement import Judgement, judge
from headsurgeon.demo.material import OTHER, TEST, Material, gather
from headsurgeon.demo.merged import MergedCheckpoint, write_merged
from headsurgeon.demo.pictures import NAMES as FIGURE_NAMES
from headsurgeon.demo.pictures import draw
from headsurgeon.demo.record import RECORD, read_left, write_record, write_start
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.demo.summary import write_summary
from headsurgeon.demo.wording import conclusions, planned, sickness, working
from headsurgeon.errors import OutputError
from headsurgeon.evaluation import Recovery, empirical_null, recovery_from
from headsurgeon.files import shorten
from headsurgeon.folders import check_own, locked, manifest_of, remove_own
from headsurgeon.operation import Patient
from headsurgeon.training.checkpoint import LAST
from headsurgeon.training.log import LOG_NAME
from headsurgeon.training.run_folder import CHECKPOINTS, PATCH_NAME, RUN_NAME

RUNS = "runs"
MERGED = "merged"
FIGURES = "figures"
SUMMARY = "summary.html"
# what is replaced when a demo is repeated
PARTS = (RUNS, MERGED, FIGURES, SUMMARY)
RUN_FILES = (RUN_NAME, LOG_NAME, PATCH_NAME, f"{CHECKPOINTS}/{LAST}")
# unlike any seed a patient is likely to have been started with
FIRST_NULL_SEED = 101


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demo found and where it lies.

    Attributes:
        folder: the output folder: demo.json, summary.html, figures/, merged/, runs/.
        case: what was known before the operation.
        outcomes: what every arm came to.
        judgement: the comparison.
        merged: the repaired checkpoint.
        seconds: how long it took.
    """

    folder: Path
    case: Case
    outcomes: dict[str, Outcome]
    judgement: Judgement
    merged: MergedCheckpoint
    seconds: float


def demo(output: Path | str, settings: DemoSettings, observer: Observer) -> DemoResult:
    """Finds sick heads, repairs them, and compares the repair with a control and a ceiling.

    Args:
        output: folder for everything; one that an interrupted demo left is gone on with. What a
            finished demo left is replaced, as long as it is what the demo wrote; anything else
            that lies in the folder stays.
        settings: what to do; see `settings_for`.
        observer: who is told.

    Raises:
        OutputError: the folder holds something else, or an interrupted demo with other settings;
            or files of a finished one that were added or changed since; or another process works
            there.
        PlanError: no head to operate on.
        Interrupted: stopped by the user; the same call goes on.
    """
    journal = Journal(observer)
    with locked(output, RECORD) as folder:
        _replaceable(folder, settings)
        return _demo(folder, settings, journal)


def _demo(folder: Path, settings: DemoSettings, journal: Journal) -> DemoResult:
    journal.heading("1  Diagnosis: which heads are asleep")
    material = gather(settings, journal)
    diagnoses = find_sick(material, settings, journal)
    journal.table(tables.diagnosed(diagnoses, settings))
    for sentence in sickness(diagnoses, settings):
        journal.say(sentence)
    journal.heading("2  Plan: whom to operate on, and what it could cost")
    case = examine(material, diagnoses, settings, journal)
    if case.all_sick:
        journal.table(tables.ablating(case, settings))
        journal.say(working(case, settings))
    journal.say(planned(case.plan, settings))
    arms_named = "Operation, control and ceiling" if settings.ceiling else "Operation and control"
    journal.heading(f"3  {arms_named}: the same slices, the same tokens")
    _prepare(folder, settings)
    outcomes, found, merged, written = _treatments(material, case, settings, folder, journal)
    journal.heading("4  Result: the merged model on held-out text")
    judgement = judge(case, outcomes, found)
    # before anything is drawn or told, which may fail; told anew when all is done
    write_record(
        folder, settings, case, outcomes, judgement, merged, journal, journal.seconds, None
    )
    _report(folder, case, outcomes, judgement, settings, journal)
    seconds = round(journal.seconds, 1)
    written |= _written(folder, outcomes)
    write_record(folder, settings, case, outcomes, judgement, merged, journal, seconds, written)
    return DemoResult(folder, case, outcomes, judgement, merged, seconds)


def _replaceable(folder: Path, settings: DemoSettings) -> dict[str, str]:
    """Names and hashes of what has to go for the demo to begin; none where it goes on, or is new.

    Raises:
        InputError: demo.json is damaged.
        OutputError: an interrupted demo with other settings, or files that are not the demo's.
    """
    left = read_left(folder)
    if left is None:
        return {}
    if not left.finished:
        if left.settings != settings.to_dict():
            raise OutputError(
                f"{folder} holds an interrupted demo with other settings (of "
                f"{shorten(str(left.settings.get('model')))}); go on with that one, or choose "
                "another folder"
            )
        return {}
    check_own(folder, left.files, PARTS)
    return left.files


def _prepare(folder: Path, settings: DemoSettings) -> None:
    """Clears the folder of what a finished demo wrote, and says whose it is from now on.

    Called once there is something to operate on, so that a misspelt model costs no earlier result.
    """
    # what is removed first may be missing later: a kill in between leaves a finished demo
    remove_own(folder, _replaceable(folder, settings), PARTS)
    write_start(folder, settings)


def _written(folder: Path, outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Names and hashes of what the demo wrote, but for the merged checkpoint."""
    runs = [f"{RUNS}/{name}/{part}" for name in outcomes for part in RUN_FILES]
    best = [
        f"{RUNS}/{name}/{CHECKPOINTS}/best-{outcome.run.best_step:06d}.safetensors"
        for name, outcome in outcomes.items()
    ]
    figures = [f"{FIGURES}/{name}.png" for name in FIGURE_NAMES]
    return manifest_of(folder, [*runs, *best, *figures, SUMMARY])


def _treatments(
    material: Material, case: Case, settings: DemoSettings, folder: Path, journal: Journal
) -> tuple[dict[str, Outcome], Recovery, MergedCheckpoint, dict[str, str]]:
    """Every arm in turn; the model is stock again before the next one begins.

    Returns:
        Figures by arm, the recovery, the checkpoint, and names and hashes of its files.
    """
    todo = arms(case.plan, settings)
    runs = folder / RUNS

    def treated(name: str, model: PreTrainedModel) -> tuple[Patient, Outcome]:
        return treat(model, todo[name], material, settings, runs / name, journal)

    outcomes: dict[str, Outcome] = {}
    patient, outcomes["surgery"] = treated("surgery", material.model)
    with journal.stage("comparing with the same heads reinitialised and not trained"):
        found = _recovered(patient, material, case, outcomes["surgery"], settings)
    with journal.stage(f"writing the merged checkpoint to {folder / MERGED}, loading it back"):
        merged = write_merged(
            patient,
            material.tokenizer,
            folder / MERGED,
            outcomes["surgery"].run.patch,
            material.test[TEST],
            outcomes["surgery"].scores[TEST].nll,
        )
    # at once, so that nothing which somebody else puts there later counts as ours
    written = manifest_of(folder, [MERGED])
    patient.revert()
    patient, outcomes["control"] = treated("control", material.model)
    patient.revert()
    if material.ceiling is not None:
        patient, outcomes["ceiling"] = treated("ceiling", material.ceiling)
        patient.revert()
    return outcomes, found, merged, written


def _recovered(
    patient: Patient, material: Material, case: Case, surgery: Outcome, settings: DemoSettings
) -> Recovery:
    """The recovery rule on both corpora; nothing that is known already is measured again."""
    seeds = range(FIRST_NULL_SEED, FIRST_NULL_SEED + settings.null_seeds)
    patient.revert()
    nulls = [empirical_null(patient, material.heads[name], seeds) for name in (TEST, OTHER)]
    patient.merge()
    before = [case.conditions[name] for name in (TEST, OTHER)]
    after = [surgery.conditions[name] for name in (TEST, OTHER)]
    return recovery_from(before, after, nulls, case.plan.operated)


def _report(
    folder: Path,
    case: Case,
    outcomes: dict[str, Outcome],
    judgement: Judgement,
    settings: DemoSettings,
    journal: Journal,
) -> None:
    """Draws the figures, writes the page, and shows tables and sentences."""
    stats = {"untouched": case.stats, **{name: arm.stats for name, arm in outcomes.items()}}
    function = tables.function(judgement, stats, case.plan)
    with journal.stage("drawing figures and the summary page"):
        pictures = draw(folder / FIGURES, case, outcomes, judgement, settings)
        write_summary(folder, case, judgement, function, pictures, settings, journal.seconds)
    journal.table(tables.losses(judgement, TEST, settings))
    journal.table(tables.losses(judgement, OTHER, settings))
    journal.table(tables.comparison(judgement, settings))
    journal.table(function)
    for sentence in conclusions(judgement, settings):
        journal.say(sentence)
