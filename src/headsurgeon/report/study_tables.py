"""The tables of a study, for the terminal and the page alike."""

import math
from collections.abc import Sequence

import numpy as np

from headsurgeon.planning.plan import Plan, PlannedHead
from headsurgeon.report.data import Align, Table
from headsurgeon.report.wording import (
    ceiling_in_words,
    estimated,
    number,
    share,
    with_bounds,
)
from headsurgeon.scores import Evaluation, crossed_difference
from headsurgeon.study.decision_rule import Decision, Share
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.results import CellResult, StudyResults, untouched
from headsurgeon.study.spec import Study

_RIGHT: tuple[Align, ...] = ("right",) * 8


def losses(results: StudyResults, trained_on: str, text: str) -> Table:
    """Loss and perplexity of every arm on one text, and the difference from the untouched."""
    stock = untouched(results)
    first = stock.scored[text].evaluation(UNTOUCHED)
    rows = []
    for arm in results.study.every_arm:
        cells = results.of(arm.name, trained_on)
        if not cells:
            continue
        scores = [cell.scored[text].evaluation(arm.name) for cell in cells]
        mean = float(np.mean([each.nll for each in scores]))
        change = crossed_difference(scores, [first] * len(scores))
        rows.append(
            (
                arm.name,
                str(len(cells)) if arm.seeded else "–",
                f"{mean:.4f}",
                _perplexity(mean),
                "" if arm.name == UNTOUCHED else estimated(change),
            )
        )
    return Table(
        key=f"losses_{trained_on}_{text}",
        title=f"Loss on {text}: {_kind(results.study, trained_on, text)}",
        columns=("arm", "seeds", "nats per token", "perplexity", "minus untouched"),
        rows=tuple(rows),
        note=f"{windows_of(first)}; 95 % intervals over documents and seeds, differences paired.",
    )


def _kind(study: Study, trained_on: str, text: str) -> str:
    """What a scored text is to the arms."""
    if text == trained_on:
        return "held-out text of the training corpus"
    if text not in study.others(trained_on):
        return f"held-out text of a part of the training corpus, {trained_on}"
    readers = [
        arm.name for arm in study.arms if study.reading(arm.name, trained_on, text) != "other"
    ]
    read = f"; read besides by {', '.join(readers)}" if readers else ""
    return f"text that was not trained on (that was {trained_on}{read})"


def decided(decisions: Sequence[Decision]) -> Table:
    """Every contrast with its interval and what it came to."""
    rows = tuple(
        (
            each.contrast,
            each.text,
            with_bounds(each.value, each.low, each.high),
            "–" if each.minimum_detectable is None else f"{each.minimum_detectable:.4f}",
            each.outcome,
        )
        for each in decisions
    )
    asked = {
        each.contrast: f"{each.contrast}: {each.arm} − {each.against}, margin {each.margin:g}"
        for each in decisions
    }
    return Table(
        key="decisions",
        title="Contrasts, registered before the study ran (nats per token; below 0 is better)",
        columns=("contrast", "text", "value and interval", "detectable", "outcome"),
        rows=rows,
        note=f"{'; '.join(asked.values())}. Intervals share the study's level (Holm). Detectable: "
        "the difference that such data would show with a probability of 80 %. For recovers the "
        "difference is that of minus the ablation cost.",
        align=("left", "left", "right", "right", "left"),
    )


def recovered(results: StudyResults, trained_on: str) -> Table:
    """The operated heads of every arm: who left the sick class, and whether they work."""
    rows = []
    for arm in results.study.every_arm:
        for cell in results.of(arm.name, trained_on):
            if cell.operated and cell.scored[trained_on].ablated:
                rows.append(_heads_of(cell, trained_on))
    return Table(
        key=f"heads_{trained_on}",
        title=f"The operated heads, on {trained_on}",
        columns=(
            *("arm", "seed", "left", "unlike", "recovered"),
            *("mass", "null", "cost", "drifted"),
        ),
        rows=tuple(rows),
        note="Left: sick before and on no text now, as an untrained head. Unlike: the null, on "
        "every text. Recovered: both, and the set costs more to ablate than before, on every text. "
        "Mass: mean of the operated heads; null: of the same heads reinitialised and not trained; "
        "cost: of ablating them, nats per token. Drifted: heads nobody touched whose mass moved by "
        "more than 0.05, of those that could change.",
    )


def transitions(results: StudyResults, trained_on: str, text: str) -> Table:
    """Which untouched heads fell sick or woke, and how many drifted, for every arm."""
    rows = []
    for arm in results.study.every_arm:
        for cell in results.of(arm.name, trained_on):
            found = cell.drift.get(text)
            if found is None:
                continue
            moved = found["transitions"].get("untouched", {})
            zones = [found["zones"][name] for name in ("watched", "outside")]
            rows.append(
                (
                    cell.arm,
                    "–" if cell.seed is None else str(cell.seed),
                    str(moved.get("healthy → sick", 0)),
                    str(moved.get("sick → healthy", 0)),
                    *(
                        f"{zone['drifted']} of {zone['could_drift']} ({zone['heads']})"
                        for zone in zones
                    ),
                )
            )
    return Table(
        key=f"transitions_{trained_on}_{text}",
        title=f"Heads nobody touched, on {text}",
        columns=("arm", "seed", "fell sick", "woke", "watched drifted", "outside drifted"),
        rows=tuple(rows),
        note="Drifted: mass moved by more than 0.05, of those that could change (of all).",
    )


def shares(found: Sequence[Share], study: Study) -> Table:
    """The recovered share of every arm."""
    rows = tuple((each.arm, each.text, share(each), number(each.gap)) for each in found)
    return Table(
        key="shares",
        title="Share of the gap to the ceiling that was recovered",
        columns=("arm", "text", "share and 95 % interval", "untouched − ceiling (nats)"),
        rows=rows,
        note="Test text; losses averaged over seeds, intervals over documents."
        + (f" The ceiling is {ceiling_in_words(study)}." if found else ""),
        align=("left", "left", "right", "right"),
    )


def training(results: StudyResults) -> Table:
    """How every trained cell was trained."""
    rows = tuple(
        (
            cell.arm,
            cell.text,
            "–" if cell.seed is None else str(cell.seed),
            f"{cell.trained.learning_rate:g}",
            f"{cell.trained.parameters:,}",
            f"{cell.trained.tokens + cell.trained.calibration_tokens:,}",
            f"{cell.trained.best_step} of {cell.trained.steps}",
            f"{cell.trained.best_dev_loss:.4f}",
            f"{cell.seconds:.0f}",
        )
        for cell in results.cells
        if cell.trained is not None
    )
    return Table(
        key="training",
        title="Training",
        columns=(
            *("arm", "text", "seed", "rate", "trainable", "tokens", "best step"),
            *("dev loss", "seconds"),
        ),
        rows=rows,
        note="Tokens include those that a start looked at. The best step on dev text is scored.",
        align=("left", "left", *_RIGHT[:7]),
    )


def planned(plan: Plan) -> Table:
    """Every planned head with what was measured of it before the operation."""
    names = ("first_token_mass", "null_mass", "slope", "entropy")
    rows = tuple(
        (
            str(head.id),
            head.role,
            head.verdict or "–",
            # a plan may be written by hand
            *(f"{head.statistics[name]:.3f}" if name in head.statistics else "–" for name in names),
            _cost(head),
        )
        for head in plan.heads
    )
    columns = ("head", "role", "verdict", "mass", "null", "slope", "entropy (nats)", "costs")
    return Table(
        key="plan",
        title="Planned heads",
        columns=columns,
        rows=rows,
        note=f"costs: of ablating the head alone ({plan.ablation_mode}), nats per token, dev text; "
        "≈ is an estimate from gradients.",
        align=("left", "left", "left", *_RIGHT[:5]),
    )


def _cost(head: PlannedHead) -> str:
    if head.ablation_cost is None:
        return "–"
    return ("≈ " if head.cost_estimated else "") + number(head.ablation_cost)


def _heads_of(cell: CellResult, text: str) -> tuple[str, ...]:
    scored, table = cell.scored[text], cell.heads[text]
    mass = table.mass()
    places = [name[1:].split("H") for name in cell.operated]
    mean = float(np.mean([mass[int(layer), int(head)] for layer, head in places]))
    cost = (sum(scored.ablated["zero"]) - sum(scored.nll)) / sum(scored.tokens)
    found, heads = cell.recovery, len(cell.operated)
    return (
        cell.arm,
        "–" if cell.seed is None else str(cell.seed),
        *(
            (f"–/{heads}", "–", "–")
            if found is None
            else (
                f"{len(found.left_sick)}/{heads}",
                str(len(found.unlike_null)),
                str(len(found.recovered)),
            )
        ),
        f"{mean:.3f}",
        "–" if found is None else f"{found.null_mass[text]:.3f}",
        number(cost),
        _drifted(cell, text),
    )


def _drifted(cell: CellResult, text: str) -> str:
    found = cell.drift.get(text)
    return "–" if found is None else f"{len(found['drifted'])}/{found['could_drift']}"


def _perplexity(nll: float) -> str:
    try:
        return f"{math.exp(nll):.2f}"
    except OverflowError:
        return "∞"


def windows_of(first: Evaluation) -> str:
    """Which windows a loss is of."""
    return (
        f"{first.split} split, {first.tokens} predicted tokens of {len(first.documents)} "
        f"documents, window {first.length}, stride {first.stride}"
    )
