"""The demo's tables, for the terminal and the page alike."""

import math
from collections.abc import Mapping

import numpy as np

from headsurgeon.demo.examination import Case, sick_everywhere
from headsurgeon.demo.judgement import Judgement
from headsurgeon.demo.material import OTHER, TEST
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.demo.wording import number, share, with_bounds
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.heads import HeadStats
from headsurgeon.planning import Plan
from headsurgeon.report import Table
from headsurgeon.scores import Evaluation

LABELS = {
    "untouched": "untouched",
    "surgery": "surgery, merged",
    "control": "control",
    "ceiling": "ceiling",
}
CONTROL = "control: the same slices trained on the same tokens in the same order, not reinitialised"
CEILING = "ceiling: the healthy twin, its same slices trained alike"


def losses(judgement: Judgement, where: str, settings: DemoSettings) -> Table:
    """Loss and perplexity of every model on one corpus, and the difference from the untouched."""
    scores = judgement.scores[where]
    text = settings.text if where == TEST else settings.other_text
    first = scores["untouched"]
    kind = {
        TEST: "held-out text of the training corpus",
        OTHER: "other text, which no arm was trained on",
    }[where]
    rows = tuple(
        (LABELS[arm], *_loss(score), _change(judgement, where, arm))
        for arm, score in scores.items()
    )
    return Table(
        key=f"losses_{where}",
        title=f"Loss on {text}: {kind}",
        columns=("model", "nats per token", "perplexity", "minus untouched"),
        rows=rows,
        note=(
            f"{first.split} split, {first.tokens} predicted tokens of {len(first.documents)} "
            f"documents, window {first.length}, stride {first.stride}; 95 % intervals over "
            f"documents, differences paired.{_who(judgement, where)}"
        ),
    )


def comparison(judgement: Judgement, settings: DemoSettings) -> Table:
    """What surgery brought over the control, and the shares of the gap."""
    rows = [
        (f"recovered share, {arm}", share(estimate)) for arm, estimate in judgement.shares.items()
    ]
    if judgement.gap is not None:
        rows.append(("untouched − ceiling (nats)", with_bounds(judgement.gap)))
    for where, corpus in zip((TEST, OTHER), settings.kinds, strict=True):
        over = judgement.over_control[where]
        rows.append((f"surgery − control, {corpus} (nats)", with_bounds(over)))
    return Table(
        "comparison", "Surgery against the control", ("", "value and 95 % interval"), tuple(rows)
    )


def function(judgement: Judgement, stats: dict[str, HeadStats], plan: Plan) -> Table:
    """The operated heads: how many left the sick class, and whether they do work now.

    Args:
        stats: statistics on the test windows, by `untouched`, `surgery`, `control`.
        plan: the plan.
    """
    recovery = judgement.recovery
    operated = list(plan.operated)
    masses = {
        name: sum(float(found.first_token_mass[head]) for head in operated) / len(operated)
        for name, found in stats.items()
    }
    on_test, on_other = recovery.function
    rows = (
        ("operated heads", str(len(recovery.heads))),
        ("left the sick class on both corpora", str(int(recovery.left_sick.sum()))),
        ("differ from untrained heads on both", str(int(recovery.unlike_null.sum()))),
        ("recovered in function", str(len(recovery.recovered))),
        ("mean mass, untouched", f"{masses['untouched']:.3f}"),
        ("mean mass, surgery", f"{masses['surgery']:.3f}"),
        ("mean mass, control", f"{masses['control']:.3f}"),
        ("mean mass, reinitialised and not trained", f"{recovery.null[0].mean():.3f}"),
        *(
            (f"ablating them costs, {arm} (nats)", with_bounds(cost))
            for arm, cost in judgement.ablation.items()
        ),
        ("surgery − untouched of that cost (nats)", with_bounds(on_test)),
        ("the same on the other corpus (nats)", with_bounds(on_other)),
        ("untouched heads that drifted", _drifted(judgement)),
    )
    return Table("function", "The operated heads, and their neighbours", ("", "value"), rows)


def diagnosed(diagnoses: Mapping[str, Diagnosis], settings: DemoSettings) -> Table:
    """Heads per verdict on each text, with the null and the sick heads' masses in the note."""
    several = len(diagnoses) > 1
    texts = dict(zip((TEST, OTHER), settings.kinds, strict=True))
    rows = [
        (verdict, *(str(diagnosis.counts[verdict]) for diagnosis in diagnoses.values()))
        for verdict in diagnoses[TEST].counts
    ]
    borderline = (str(int(diagnosis.borderline.sum())) for diagnosis in diagnoses.values())
    rows.append(("borderline among them", *borderline))
    if several:
        both = str(len(sick_everywhere(diagnoses)))
        sick = (str(len(diagnosis.sick)) for diagnosis in diagnoses.values())
        rows += [("sick: sink or dead", *sick), ("sick on both", *[both] * len(diagnoses))]
    columns = [texts[name] for name in diagnoses] if several else ["heads"]
    note = " ".join(
        f"{f'On {texts[name]} an' if several else 'An'} {_masses(diagnosis)}."
        for name, diagnosis in diagnoses.items()
    )
    return Table("diagnosis", "Verdicts", ("verdict", *columns), tuple(rows), note)


def _masses(diagnosis: Diagnosis) -> str:
    null, mass = diagnosis.stats.null_mass, diagnosis.stats.first_token_mass
    low, high = f"{np.nanmin(null):.3f}", f"{np.nanmax(null):.3f}"
    # without a position bias every untrained head is alike
    null_mass = low if low == high else f"{low} to {high}"
    text = f"untrained head would show a mass of {null_mass} here"
    if not diagnosis.sick:
        return text
    sick = mass[diagnosis.is_sick]
    return f"{text}; the sick ones show {sick.min():.3f} to {sick.max():.3f}"


def ablating(case: Case, settings: DemoSettings) -> Table:
    """What it costs to switch off all sick heads, and those to be operated on."""
    names = (TEST, OTHER)
    idle = case.conditions
    sick, planned = len(case.sick), len(case.plan.operated)
    rows = (
        ("none: the loss itself", *(_loss(case.scores[name])[0] for name in names)),
        (
            f"all {sick} that are sick on both",
            *(with_bounds(case.all_sick[name].joint) for name in names),
        ),
        (
            f"the {planned} of them to be operated on",
            *(with_bounds(idle[name].ablation.joint) for name in names),
        ),
    )
    sizes = [
        f"{case.scores[name].tokens} predicted tokens of {len(case.scores[name].documents)} "
        "documents"
        for name in names
    ]
    read = f"{sizes[0]} each" if sizes[0] == sizes[1] else " and ".join(sizes)
    return Table(
        "ablated",
        "What ablating heads costs, before anything is changed (nats per token)",
        ("heads ablated", *settings.kinds),
        rows,
        f"test split, {read}; 95 % intervals over documents, differences paired.",
    )


def planned_heads(plan: Plan) -> Table:
    """Every planned head with what was measured of it before the operation; for the page."""
    names = ("first_token_mass", "null_mass", "slope", "entropy")
    rows = tuple(
        (
            str(head.id),
            head.verdict,
            *(f"{head.statistics[name]:.3f}" for name in names),
            "–" if head.ablation_cost is None else number(head.ablation_cost),
        )
        for head in plan.heads
    )
    columns = ("head", "verdict", "mass", "null", "slope", "entropy (nats)", "ablating costs")
    return Table("plan", "Planned heads", columns, rows, "costs in nats per token, on dev text")


def _loss(score: Evaluation) -> tuple[str, str]:
    found = score.interval()
    low, high = math.exp(found.low), math.exp(found.high)
    if found.low != found.low:
        return f"{found.value:.4f} [no interval]", f"{score.perplexity:.2f} [no interval]"
    return (
        f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]",
        f"{score.perplexity:.2f} [{low:.2f}, {high:.2f}]",
    )


def _change(judgement: Judgement, where: str, arm: str) -> str:
    return "" if arm == "untouched" else with_bounds(judgement.changes[where][arm])


def _who(judgement: Judgement, where: str) -> str:
    if where != TEST:
        return ""
    return f" {CONTROL}." if judgement.gap is None else f" {CONTROL}; {CEILING}."


def _drifted(judgement: Judgement) -> str:
    return f"{len(judgement.drift.drifted)} of {judgement.drift.could_drift}"
