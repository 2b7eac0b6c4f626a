"""The heads of a study's arms for a page's head map, and their masses for its charts."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.heads import parse_heads
from headsurgeon.planning.plan import Plan
from headsurgeon.report.head_moments import UNTOUCHED, HeadMoments, Moment
from headsurgeon.report.run_heads import (
    LOGGED,
    heads_of_diagnosis,
    heads_of_run,
    planned_costs,
    samples_in,
    told_by,
)
from headsurgeon.study.conclusion import StudyResult
from headsurgeon.study.results import (
    PLAN,
    Cell,
    CellResult,
    StudyResults,
    folder_of,
    stock_file,
    untouched,
)


def first_seeds(results: StudyResults, text: str) -> dict[str, CellResult]:
    """The first seed of every trained arm, by name."""
    found = {}
    for arm in results.study.arms:
        cells = [cell for cell in results.of(arm.name, text) if cell.trained is not None]
        if cells:
            found[arm.name] = cells[0]
    return found


def heads_of_study(result: StudyResult) -> tuple[HeadMoments, ...]:
    """The arms, in the study's order: of each the first seed, on each text that it was trained on.

    Where nothing was trained, the untouched model alone.
    """
    results = result.results
    found = []
    for text in results.study.train_on:
        stock = Diagnosis.load(stock_file(results.folder, text))
        for name, cell in first_seeds(results, text).items():
            found.append(_of_cell(results, cell, text, f"{name}, {text}", stock))
    if not found:
        text = results.study.train_on[0]
        found = [_of_stock(results, text, Diagnosis.load(stock_file(results.folder, text)))]
    return tuple(found)


def masses(
    cell: CellResult, text: str, chosen: Bool[np.ndarray, "layer head"] | None = None
) -> Float[np.ndarray, " those"]:
    """The masses of a cell's heads on test windows of a text, all or those chosen."""
    mass = cell.heads[text].mass()
    return mass.ravel() if chosen is None else mass[chosen]


def _of_cell(
    results: StudyResults, cell: CellResult, text: str, name: str, stock: Diagnosis
) -> HeadMoments:
    arm = results.study.arm(cell.arm)
    folder = folder_of(results.folder, cell.cell)
    # the twin is another model: what was measured of the subject says nothing of it
    of_subject = arm.model == "subject"
    known = told_by(stock)
    if of_subject:
        plan = Plan.load(results.folder / PLAN)
        known = {
            **known,
            "norm": stock.stats.output_norm,
            **planned_costs(plan, stock.stats.shape),
        }
    heads = heads_of_run(folder, name, known)
    if heads is None:
        # several passes have no log of their own; the merged model was measured all the same
        heads = _before_and_after(results, cell, text, name, stock)
    before = samples_in(folder_of(results.folder, Cell(UNTOUCHED))) if of_subject else {}
    now = samples_in(folder)
    samples = {
        name: found["now"]
        for name, found in ((UNTOUCHED, before), ("trained", now))
        if "now" in found
    }
    return replace(heads, recovered=_recovered(cell), samples=samples)


def _before_and_after(
    results: StudyResults, cell: CellResult, text: str, name: str, stock: Diagnosis
) -> HeadMoments:
    scored = cell.scored[text]
    tables = (untouched(results).heads[text], cell.heads[text])
    return HeadMoments(
        name=name,
        about=f"Measured on test windows of {scored.corpus}.",
        moments=(Moment(UNTOUCHED), Moment("trained", 1)),
        values={
            ours: np.array([getattr(table, theirs) for table in tables], dtype=np.float64)
            for ours, theirs in LOGGED.items()
        },
        fixed=told_by(stock),
        thresholds=results.study.plan.limits,
        operated=parse_heads(cell.operated),
    )


def _of_stock(results: StudyResults, text: str, stock: Diagnosis) -> HeadMoments:
    plan = Plan.load(results.folder / PLAN)
    return heads_of_diagnosis(stock, f"{UNTOUCHED}, {text}", plan)


def _recovered(cell: CellResult) -> Mapping[str, str]:
    """What the recovery rule says of each operated head of a cell."""
    found = cell.recovery
    if found is None:
        return {}
    said = {}
    for head in found.heads:
        if head in found.recovered:
            said[head] = (
                "recovered: it left the sick class, differs from the same head reinitialised and "
                "not trained, and ablating the operated heads costs more than before, on all texts."
            )
            continue
        missing = [
            words
            for words, holds in (
                ("it did not leave the sick class on every text", head in found.left_sick),
                ("it looks like a head that was not trained", head in found.unlike_null),
                (
                    "ablating the operated heads does not cost more than before on every text",
                    found.functional,
                ),
            )
            if not holds
        ]
        said[head] = f"not recovered: {'; '.join(missing)}."
    return said
