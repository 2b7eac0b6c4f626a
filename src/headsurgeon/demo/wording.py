"""The sentences the demo ends with. What they say depends on the intervals alone, whoever wins."""

from collections.abc import Mapping

from headsurgeon.demo.examination import Case, sick_everywhere
from headsurgeon.demo.judgement import Judgement
from headsurgeon.demo.material import OTHER, TEST
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.evaluation import Drift, Recovery
from headsurgeon.planning import Plan
from headsurgeon.scores import Estimate

PLANTED = (
    "The collapse of this model was PLANTED: an extra loss early in its training pushed named "
    "heads onto the first token. So its illness is known and a repair can be scored; what "
    "collapsed by itself in a large model may behave differently."
)
PLANTED_SHORT = "The collapse of this model was PLANTED while it was trained."
NOT_PLANTED = (
    "Nobody knows which heads of this model ought to be repaired: a sink may be work. So only "
    "heads that cost little when ablated are operated on, and there is no healthy twin to compare "
    "with."
)
# what was tried on a model before, by its name; figures from docs/log.md
TRIALS = {
    "zoo:smollm2-135m": (
        "An earlier trial on this model operated on all 92 heads that were sick on its text: loss "
        "on dev text rose from 2.62 to 5.48 nats, and 40 steps of 1,024 tokens brought it back to "
        "4.00 only, while by the rule “mass below 0.5” every head counted as woken."
    )
}


def number(value: float) -> str:
    """A signed figure with a real minus sign."""
    return f"{value:+.4f}".replace("-", "−")


def with_bounds(estimate: Estimate) -> str:
    """A signed figure with its interval."""
    if estimate.low != estimate.low:
        return f"{number(estimate.value)} [no interval]"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def share(estimate: Estimate) -> str:
    """A recovered share in per cent with its interval."""
    if estimate.value != estimate.value:
        return "undefined"
    text = f"{100 * estimate.value:.0f} % [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
    return text.replace("-", "−")


def against_control(change: Estimate, corpus: str) -> str:
    """Whether surgery beat the same training without reinitialisation.

    Args:
        change: loss of surgery less loss of the control, nats per token.
        corpus: what both were evaluated on.
    """
    figure = with_bounds(change)
    if change.below_zero:
        return (
            f"Surgery beat the control on {corpus}: surgery − control = {figure} nats per token, "
            "the whole interval below 0."
        )
    if change.above_zero:
        return (
            f"Surgery did NOT beat the control on {corpus}: surgery − control = {figure} nats per "
            "token, the whole interval above 0. Training the same slices without reinitialising "
            "them did better."
        )
    if change.low != change.low:
        return (
            f"Whether surgery beat the control on {corpus} is unknown: surgery − control = "
            f"{figure} nats per token, and a single document gives no interval."
        )
    return (
        f"Surgery did NOT beat the control on {corpus}: surgery − control = {figure} nats per "
        "token, and the interval includes 0, so the two cannot be told apart."
    )


def of_the_gap(gap: Estimate | None, shares: Mapping[str, Estimate]) -> str:
    """How much of what could be recovered was recovered."""
    if gap is None:
        return "There is no healthy twin of this model, so no recovered share can be given."
    if not gap.above_zero:
        return (
            f"Untouched − ceiling = {with_bounds(gap)} nats per token: the gap is not clearly "
            "above 0, so the recovered share is undefined."
        )
    return (
        f"Of the {gap.value:.4f} nats per token between the untouched model and the ceiling "
        f"(the healthy twin, its same slices trained on the same tokens), surgery recovered "
        f"{share(shares['surgery'])}, the control {share(shares['control'])}."
    )


def elsewhere(change: Estimate, corpus: str) -> str:
    """Whether text that no arm was trained on got worse.

    Args:
        change: loss of surgery less loss of the untouched model, nats per token.
        corpus: the other corpus.
    """
    figure = with_bounds(change)
    if change.above_zero:
        verdict = f"Surgery HARMED text it was not trained on: loss on {corpus} rose by"
    elif change.below_zero:
        verdict = (
            f"Text that surgery was not trained on did not suffer: loss on {corpus} changed by"
        )
    else:
        verdict = (
            f"On text that surgery was not trained on no clear change was seen: loss on {corpus} "
            "changed by"
        )
    return f"{verdict} {figure} nats per token."


def recovered(recovery: Recovery) -> str:
    """How many heads came back, by mass and in function."""
    total = len(recovery.heads)
    left, held = int(recovery.left_sick.sum()), len(recovery.recovered)
    text = (
        f"{left} of {total} operated heads are no longer sick, but an untrained head would not be "
        f"either (its mass is {recovery.null[0].mean():.3f} on average). "
    )
    if recovery.functional:
        return text + (
            f"{held} of {total} recovered in function: they differ from untrained heads, and "
            "ablating the set costs more than it did before, on both corpora."
        )
    grew = all(gain.above_zero for gain in recovery.function)
    reason = "cost anything" if grew else "cost more than it did before"
    return text + (
        f"{held} of {total} recovered in function: ablating the set does not clearly {reason} on "
        "both corpora."
    )


def bystanders(drift: Drift) -> str:
    """What happened to the heads nobody touched."""
    fallen = drift.transitions["untouched"]["healthy", "sick"]
    return (
        f"Of {drift.could_drift} untouched heads that could change, {len(drift.drifted)} moved by "
        f"more than {drift.threshold} in mass and {fallen} fell sick."
    )


def sickness(diagnoses: Mapping[str, Diagnosis], settings: DemoSettings) -> tuple[str, ...]:
    """What "sick" means in a model that nobody made sick, and where such heads are."""
    if len(diagnoses) < 2:
        return ()
    total = diagnoses[TEST].heads
    where = ". ".join(
        _where(diagnoses[name], text)
        for name, text in ((TEST, settings.text), (OTHER, settings.other_text))
    )
    both = len(sick_everywhere(diagnoses))
    return (
        "Sick says where a head looks, not that it is broken: more than half of its attention lies "
        "on the first token. In a model that came out of ordinary training such a head may well "
        "do work, or have nothing to do at most tokens.",
        f"{where}. {both} of {total} are sick on both, and only those can be operated on: a head "
        "that sleeps on one text alone is awake.",
    )


def _where(diagnosis: Diagnosis, text: str) -> str:
    total = diagnosis.heads
    share = 100 * len(diagnosis.sick) / total
    found = f"On {text} {len(diagnosis.sick)} of {total} heads ({share:.0f} %) are sick"
    lowest = min((head.layer for head in diagnosis.sick), default=0)
    if lowest == 0:
        return found
    return f"{found}, none of them in the first {lowest} layers"


def working(case: Case, settings: DemoSettings) -> str:
    """Whether the sick heads do work, before any of them is cut; with what was tried before."""
    costs = [(name, case.all_sick[name].joint) for name in (TEST, OTHER)]
    texts = {TEST: settings.text, OTHER: settings.other_text}
    figures = " and ".join(f"{with_bounds(cost)} nats on {texts[name]}" for name, cost in costs)
    together = f"Ablating all {len(case.sick)} sick heads at once costs {figures}"
    if all(cost.above_zero for _, cost in costs):
        text = f"{together}: sick as they are, they do work. So not all of them are operated on."
    else:
        text = f"{together}: no clear cost on every text."
    trial = TRIALS.get(settings.model)
    return f"{text} {trial}" if trial else text


def planned(plan: Plan, settings: DemoSettings) -> str:
    """What will be operated on and what ablating it costs now."""
    costs = {head.id: head.ablation_cost for head in plan.heads if head.ablation_cost is not None}
    layers = sorted({head.layer for head in plan.operated})
    heads = "1 head" if len(plan.operated) == 1 else f"{len(plan.operated)} heads"
    span = f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
    text = (
        f"Rule {plan.rule}: {heads} in {span} will be reinitialised ({plan.init}, "
        f"{plan.output_start})."
    )
    if plan.joint_cost is None or not costs:
        return text
    dearest = max(costs, key=lambda head: costs[head])
    known = (
        f"Ablating all of them costs {number(plan.joint_cost)} nats per token now; the dearest "
        f"alone, {dearest}, {number(costs[dearest])}."
    )
    if plan.rule != "idle":
        return f"{text} {known}"
    return (
        f"{text} {known} That is on the dev text they were chosen by, {settings.cost_windows} "
        f"windows per corpus, and on the corpus where it is higher; the limit was "
        f"{settings.max_cost:g}. What was chosen for costing little costs more on other text."
    )


def overall(judgement: Judgement, settings: DemoSettings) -> str:
    """Whether this operation was worth it, where there is no ceiling to measure it by."""
    changes = judgement.changes
    faults = []
    if not changes[TEST]["surgery"].below_zero:
        worse = "is worse" if changes[TEST]["surgery"].above_zero else "is not clearly better"
        faults.append(f"it {worse} than the untouched model on {settings.text}")
    if not judgement.over_control[TEST].below_zero:
        faults.append(
            "training the same slices without reinitialising them did "
            + ("better" if judgement.over_control[TEST].above_zero else "as well")
        )
    if changes[OTHER]["surgery"].above_zero:
        faults.append(f"it harmed {settings.other_text}")
    figures = ", ".join(
        f"{arm} {with_bounds(changes[TEST][arm])}" for arm in ("surgery", "control")
    )
    start = f"Against the untouched model on {settings.text}: {figures} nats per token."
    if not faults:
        return f"{start} So this operation was worth it, as far as these texts tell."
    return f"{start} So this operation was not worth it: {'; '.join(faults)}."


def conclusions(judgement: Judgement, settings: DemoSettings) -> tuple[str, ...]:
    """The demo's last words, the most important first."""
    return (
        *(() if settings.planted else (overall(judgement, settings),)),
        against_control(judgement.over_control[TEST], settings.text),
        against_control(judgement.over_control[OTHER], settings.other_text),
        of_the_gap(judgement.gap, judgement.shares),
        recovered(judgement.recovery),
        elsewhere(judgement.changes[OTHER]["surgery"], settings.other_text),
        bystanders(judgement.drift),
        PLANTED if settings.planted else NOT_PLANTED,
    )
