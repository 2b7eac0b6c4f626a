"""demo.json: everything the demo found and every figure it showed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsurgeon.demo.arms import Outcome
from headsurgeon.demo.examination import Case
from headsurgeon.demo.journal import Journal
from headsurgeon.demo.judgement import Judgement
from headsurgeon.demo.material import OTHER
from headsurgeon.demo.merged import MergedCheckpoint
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import InputError
from headsurgeon.files import header, read_json, shorten, write_json
from headsurgeon.folders import MANIFEST, check_manifest

RECORD = "demo.json"


@dataclass(frozen=True)
class Left:
    """What an earlier demo left in a folder.

    Attributes:
        finished: whether it came to its end.
        settings: what it was told to do, as plain data.
        files: names and hashes of what it wrote; empty before its end.
    """

    finished: bool
    settings: dict[str, Any]
    files: dict[str, str]


def read_left(folder: Path) -> Left | None:
    """What demo.json says of an earlier demo in `folder`; None where there is none.

    Raises:
        InputError: demo.json is damaged, or of another kind.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    content = read_json(path, "demo")
    finished, settings = content.get("finished"), content.get("settings")
    if not isinstance(finished, bool) or not isinstance(settings, dict):
        raise InputError(
            f"{path}: expected finished (true or false) and settings (an object), found "
            f"{shorten(repr(finished))} and {shorten(repr(settings))}; the file was edited"
        )
    return Left(finished, settings, check_manifest(content.get(MANIFEST, {}), path))


def write_start(folder: Path, settings: DemoSettings) -> None:
    """Marks `folder` as the demo's, so that an interrupted demo may go on there."""
    content = {**header("demo"), "finished": False, "settings": settings.to_dict()}
    write_json(folder / RECORD, content)


def write_record(
    folder: Path,
    settings: DemoSettings,
    case: Case,
    outcomes: Mapping[str, Outcome],
    judgement: Judgement,
    merged: MergedCheckpoint,
    journal: Journal,
    seconds: float,
    written: Mapping[str, str] | None,
) -> None:
    """Writes demo.json: settings, results at full precision, and what was shown as it was shown.

    Args:
        seconds: how long the demo took.
        written: names and hashes of all other files, so that the next demo replaces only these;
            None while there is more to come.
    """
    write_json(
        folder / RECORD,
        {
            **header("demo"),
            "finished": written is not None,
            "model": settings.model,
            "planted": settings.planted,
            "seconds": seconds,
            "settings": settings.to_dict(),
            "diagnosis": _diagnosis(case.diagnosis),
            "other_diagnosis": _diagnosis(case.diagnoses[OTHER])
            if OTHER in case.diagnoses
            else None,
            "all_sick": {
                "heads": [str(head) for head in case.sick],
                "cost": {name: found.joint.model_dump() for name, found in case.all_sick.items()},
            },
            "planned_cost": {
                name: found.ablation.joint.model_dump() for name, found in case.conditions.items()
            },
            "plan": _plan(case),
            **results(judgement),
            "training": {name: _training(outcome) for name, outcome in outcomes.items()},
            "merged": {
                "folder": merged.folder.name,
                "nll": merged.nll,
                "reloaded_nll": merged.reloaded_nll,
            },
            "shown": journal.entries,
            MANIFEST: dict(written or {}),
        },
    )


def results(judgement: Judgement) -> dict[str, Any]:
    """The comparison as plain data."""
    return {
        "losses": {
            where: {arm: score.model_dump() for arm, score in by.items()}
            for where, by in judgement.scores.items()
        },
        "minus_untouched": {
            where: {arm: change.model_dump() for arm, change in by.items()}
            for where, by in judgement.changes.items()
        },
        "surgery_minus_control": {
            where: change.model_dump() for where, change in judgement.over_control.items()
        },
        "gap": None if judgement.gap is None else judgement.gap.model_dump(),
        "recovered_share": {arm: share.model_dump() for arm, share in judgement.shares.items()},
        "recovery": judgement.recovery.model_dump(exclude={"stock", "revived"}),
        "ablation": {arm: cost.model_dump() for arm, cost in judgement.ablation.items()},
        "drift": judgement.drift.model_dump(),
    }


def _diagnosis(found: Diagnosis) -> dict[str, Any]:
    return {
        "corpus": found.stats.provenance.corpus,
        "split": found.stats.provenance.split,
        "windows": found.stats.provenance.count,
        "length": found.stats.provenance.length,
        "counts": found.counts,
        "sick": [str(head) for head in found.sick],
        "borderline": found.borderline.tolist(),
        "verdicts": found.verdicts.tolist(),
        "first_token_mass": found.stats.first_token_mass.tolist(),
        "null_mass": found.stats.null_mass.tolist(),
        "slopes": found.stats.slopes.tolist(),
    }


def _plan(case: Case) -> dict[str, Any]:
    plan = case.plan
    return {
        "rule": plan.rule,
        "init": plan.init,
        "output_start": plan.output_start,
        "fingerprint": plan.fingerprint,
        "joint_cost": plan.joint_cost,
        "heads": {str(head.id): head.ablation_cost for head in plan.heads},
        "notes": list(plan.notes),
    }


def _training(outcome: Outcome) -> dict[str, Any]:
    return {
        "learning_rate": outcome.arm.learning_rate,
        "init": outcome.arm.plan.init,
        "output_start": outcome.arm.plan.output_start,
        "steps": outcome.run.steps,
        "tokens": outcome.run.tokens,
        "best_step": outcome.run.best_step,
        "best_dev_loss": outcome.run.best_dev_loss,
        "dev_loss": [
            {"tokens": tokens, "nll": loss}
            for tokens, loss in zip(outcome.curve_tokens, outcome.curve_loss, strict=True)
        ],
        "mean_mass": float(
            sum(outcome.stats.first_token_mass[head] for head in outcome.arm.plan.operated)
            / len(outcome.arm.plan.operated)
        ),
    }
