"""The heads of runs, cells and diagnoses for a page's head map, from their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.diagnosis.series import HeadSeries
from headsurgeon.errors import InputError
from headsurgeon.evaluation.attention_samples import SAMPLES, SAMPLES_BEFORE, AttentionSamples
from headsurgeon.planning.plan import Plan
from headsurgeon.report.head_moments import UNTOUCHED, HeadMoments, Moment
from headsurgeon.training.log import read_entries
from headsurgeon.training.recorded import redistribution_if_measured
from headsurgeon.training.run_file import LOG_NAME, RunFile, read_run_file

# what a run's log and a cell, and what a diagnosis call that which a page shows
LOGGED = {"mass": "first_token_mass", "entropy": "entropy", "distance": "mean_distance"}
_MEASURED = {**LOGGED, "norm": "output_norm"}


def heads_of_run(
    folder: Path, name: str, fixed: Mapping[str, Float[np.ndarray, "layer head"]] | None = None
) -> HeadMoments | None:
    """Every head along a run, finished or not; None where its log says nothing of heads.

    Args:
        folder: of a run, or of a cell of a study.
        name: what the model is called.
        fixed: statistics from elsewhere, such as slope and null.

    Raises:
        InputError: no run lies there.
        OutputError: its log is damaged.
    """
    found = redistribution_if_measured(folder)
    if found is None:
        return None
    start, *entries = read_entries(folder / LOG_NAME)
    measured = [e for e in entries if e["kind"] == "evaluation" and e["heads"] is not None]
    run = read_run_file(folder)
    plan = Plan.from_yaml(run.plan)
    dev = run.identity["dev"]
    windows = run.identity["settings"]["statistics_windows"]
    moments = [Moment(UNTOUCHED, None, f"dev loss {start['dev_loss']:.4f}")]
    moments += [_moment(entry) for entry in measured]
    return HeadMoments(
        name=name,
        about=f"Measured while it ran: {windows} windows of {dev['corpus']}, {dev['split']} split.",
        moments=tuple(moments),
        values={
            ours: np.stack([_table(entry["heads"], logged) for entry in (start, *measured)])
            for ours, logged in LOGGED.items()
        },
        fixed={**_planned(plan, run, found.mass_before.shape), **(fixed or {})},
        thresholds=plan.limits,
        operated=plan.operated,
        watched=plan.watched,
        cannot_change=found.fixed,
        samples=samples_in(folder),
    )


def heads_of_diagnosis(
    diagnosis: Diagnosis, name: str, plan: Plan | None = None, folder: Path | None = None
) -> HeadMoments:
    """The heads of a model at one moment."""
    stats, source = diagnosis.stats, diagnosis.stats.provenance
    costs = {} if plan is None else planned_costs(plan, stats.shape)
    return HeadMoments(
        name=name,
        about=f"Measured on {source.count} windows of {source.length} tokens of {source.corpus}, "
        f"{source.split} split.",
        moments=(Moment("as it is"),),
        values={ours: stats.mean(theirs)[None] for ours, theirs in _MEASURED.items()},
        fixed={**told_by(diagnosis), **costs},
        thresholds=diagnosis.thresholds,
        operated=() if plan is None else plan.operated,
        watched=() if plan is None else plan.watched,
        samples={} if folder is None else samples_in(folder),
    )


def heads_of_series(series: HeadSeries, name: str) -> HeadMoments:
    """The heads of checkpoints of one training, or of a run that was monitored."""
    source = series.source
    return HeadMoments(
        name=name,
        about=f"Measured on {source.count} windows of {source.length} tokens of {source.corpus}, "
        f"{source.split} split.",
        moments=tuple(Moment(each.label, each.step) for each in series.points),
        values={"mass": series.mass},
        fixed={"null": source.null_mass},
        thresholds=source.thresholds,
    )


def told_by(diagnosis: Diagnosis) -> dict[str, Float[np.ndarray, "layer head"]]:
    """What a diagnosis says of heads for good: null, and the slope where there is one."""
    stats = diagnosis.stats
    slopes = {"slope": stats.slopes} if stats.slopes.any() else {}
    return {**slopes, "null": stats.null_mass}


def planned_costs(plan: Plan, shape: Sequence[int]) -> dict[str, Float[np.ndarray, "layer head"]]:
    """What ablating each planned head alone costs, as the plan has it; NaN for the others."""
    costs = np.full(tuple(shape), np.nan)
    for head in plan.heads:
        if head.ablation_cost is not None:
            costs[head.id] = head.ablation_cost
    return {f"cost_{plan.ablation_mode}": costs} if np.isfinite(costs).any() else {}


def _planned(
    plan: Plan, run: RunFile, shape: tuple[int, int]
) -> dict[str, Float[np.ndarray, "layer head"]]:
    """What a run's own files say of heads: slopes of all, null and costs of those planned."""
    found = planned_costs(plan, shape)
    slopes = np.array((run.model_extra or {}).get("slopes", ()), dtype=np.float64)
    if slopes.any():
        found["slope"] = np.tile(slopes, (shape[0], 1))
    for ours, theirs in (("null", "null_mass"), ("norm", "output_norm")):
        known = np.full(shape, np.nan)
        for head in plan.heads:
            known[head.id] = head.statistics.get(theirs, np.nan)
        if np.isfinite(known).any():
            found[ours] = known
    return found


def samples_in(folder: Path) -> dict[str, AttentionSamples]:
    """The attention that is kept in a folder, before and after; what is not there is left out."""
    files = {UNTOUCHED: folder / SAMPLES_BEFORE, "now": folder / SAMPLES}
    return {name: AttentionSamples.load(path) for name, path in files.items() if path.is_file()}


def _moment(entry: Mapping[str, Any]) -> Moment:
    remark = f"{entry['tokens']:,} tokens, dev loss {entry['dev_loss']:.4f}"
    return Moment(f"step {entry['step']}", entry["step"], remark)


def _table(heads: Mapping[str, Any], name: str) -> Float[np.ndarray, "layer head"]:
    if name not in heads:
        raise InputError(f"a log that has no {name} of heads; run it again")
    return np.array(heads[name], dtype=np.float64)
