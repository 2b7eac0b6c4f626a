"""What the paper reports, with its grade, beside what the same heads came to here."""

import re

import numpy as np

from headsurgeon.diagnosis.verdicts import classify
from headsurgeon.heads import parse_heads
from headsurgeon.paper import PublishedNumber, published
from headsurgeon.paper.numbers import SOURCE
from headsurgeon.planning.plan import Plan
from headsurgeon.report.data import Table
from headsurgeon.study.parts import UNTOUCHED, Reported
from headsurgeon.study.results import PLAN, CellResult, StudyResults, untouched

# texts of a study that stand for those of the paper, by what they are called in each
TEXTS = {
    "diagnostic text": "diagnostic",
    "8 short texts": "probes",
    "12 held-out prompts": "held_out",
    "C4 validation": "c4",
}
DRIFTED = 0.05


def reported(results: StudyResults) -> Table:
    """A row for each published number of the stages that the study repeats.

    What cannot be compared has a dash: a quantity that a study does not measure, a text that it
    does not have, and an arm that was kept at another epoch than the stage names.
    """
    rows = []
    for each in results.study.reported:
        cell = _cell(results, each)
        for number in published(each.model, each.stage):
            measured = None if cell is None else _measured(results, cell, number)
            rows.append(
                (
                    each.stage,
                    number.quantity,
                    _shown(number.value),
                    number.grade,
                    "–" if measured is None else measured,
                    each.arm,
                    "; ".join(part for part in (number.measured_on, _remark(number)) if part),
                )
            )
    return Table(
        "reported",
        f"Reported in {SOURCE}, and measured here",
        ("stage", "quantity", "reported", "grade", "here", "arm", "reported on; remark"),
        tuple(rows),
        "Grade: A text and figure of the paper agree, or recounted; B one source alone; C "
        "contradicted; D no script or no data. Every number of the paper is of one seed and one "
        "checkpoint, without an interval, and is comparable on exactly its texts and its model "
        "alone; here the model, and all texts but the diagnostic one, may be others.",
        align=("left", "left", "right", "left", "right", "left", "left"),
    )


def _cell(results: StudyResults, each: Reported) -> CellResult | None:
    cells = results.of(each.arm, each.text or results.study.train_on[0])
    epoch = re.search(r"\bE(\d+)$", each.stage)
    if not cells or epoch is None or cells[0].trained is None:
        return cells[0] if cells else None
    settings = cells[0].trained.settings
    kept = settings.get("keep")
    if kept == "last":
        kept = f"epoch:{settings.get('epochs'):g}"
    # the best on dev text stands for whichever the paper chose
    return cells[0] if kept in ("best", f"epoch:{int(epoch[1])}") else None


def _measured(results: StudyResults, cell: CellResult, number: PublishedNumber) -> str | None:
    name = TEXTS.get(number.measured_on)
    if number.quantity == "operated heads":
        return str(len(cell.operated))
    if name is None or name not in cell.scored:
        return None
    if number.quantity == "perplexity":
        score = cell.scored[name].evaluation(cell.arm)
        # as the paper's code weights its short texts
        given = results.study.text(name).given
        value = score.perplexity_weighted_by_length if given else score.perplexity
        return f"{value:.2f}"
    if number.measured_on == "diagnostic text":
        return _of_heads(results, cell, name, number.quantity)
    return None


def _of_heads(results: StudyResults, cell: CellResult, text: str, quantity: str) -> str | None:
    limits = results.study.plan.limits
    mass = cell.heads[text].mass()
    entropy = np.array(cell.heads[text].entropy, dtype=np.float64)
    verdicts = classify(mass, entropy, limits, np.isfinite(mass).any(axis=1))
    sick = limits.is_sick(np.nan_to_num(mass))
    if quantity in ("healthy", "sink", "dead", "low-entropy"):
        return str(int((verdicts == quantity).sum()))
    if quantity == "sick heads":
        return str(int(sick.sum()))
    if quantity == "sick share":
        return f"{sick.mean():.3f}"
    if quantity == "woken":
        return str(sum(not sick[head] for head in parse_heads(cell.operated)))
    return _of_changes(results, cell, mass - untouched(results).heads[text].mass(), quantity)


def _of_changes(
    results: StudyResults, cell: CellResult, change: np.ndarray, quantity: str
) -> str | None:
    zone, _, statistic = quantity.partition(" ")
    if cell.arm == UNTOUCHED or zone not in ("outside", "watched"):
        return None
    watched = np.zeros(change.shape, dtype=bool)
    for head in Plan.load(results.folder / PLAN).watched:
        watched[head] = True
    operated = np.zeros(change.shape, dtype=bool)
    for head in parse_heads(cell.operated):
        operated[head] = True
    inside = change[watched & ~operated if zone == "watched" else ~watched & ~operated]
    if not inside.size:
        return None
    if statistic == "drifted":
        return f"{int((np.abs(inside) > DRIFTED).sum())} of {inside.size}"
    if statistic == "mean change":
        return f"{np.abs(inside).mean():.4f}"
    if statistic == "worst change":
        return f"{inside[np.abs(inside).argmax()]:+.3f}".replace("-", "−")
    return None


def _remark(number: PublishedNumber) -> str:
    meanings = [
        f"{what}: {text}"
        for what, text in (("its text", number.as_text), ("its code", number.as_code))
        if text
    ]
    return "; ".join([*meanings, *([number.remark] if number.remark else [])])


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
