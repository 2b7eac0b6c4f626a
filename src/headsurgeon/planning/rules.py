"""Rules: which heads of a diagnosis are to be operated on. One small function each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np

from headsurgeon.diagnosis.diagnosis import Diagnosis, heads_where
from headsurgeon.errors import NothingToOperate, PlanError
from headsurgeon.heads import NO_ATTENTION, HeadId
from headsurgeon.planning.costs import Costs
from headsurgeon.planning.idle_heads import find_idle
from headsurgeon.planning.matching import nearest
from headsurgeon.scores import Estimate


@dataclass(frozen=True)
class RuleOptions:
    """The options of rules; every rule reads only the fields it lists in `RULES`."""

    heads: tuple[HeadId, ...] | None = None
    band: tuple[int, int] | None = None
    layers: tuple[int, int] | None = None
    column: int | None = None
    untouched: Diagnosis | None = None
    seed: int = 0
    cost: Costs | None = None
    max_cost: float = 0.05
    ablation_mode: str = "zero"


@dataclass(frozen=True)
class SelectedHeads:
    """What a rule selects: heads to operate on, healthy heads to watch, remarks, known costs.

    Attributes:
        estimated: whether the costs of single heads are estimates.
    """

    operate: tuple[HeadId, ...]
    watch: tuple[HeadId, ...] = ()
    notes: tuple[str, ...] = ()
    costs: Mapping[HeadId, float] = field(default_factory=dict)
    joint_cost: float | None = None
    estimated: bool = False


def sick(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """Every sick head, within `layers` if given."""
    return SelectedHeads(
        _some(_within(diagnosis.sick, options.layers), "no sick head in those layers")
    )


def newly_sick(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """Heads that are sick now and were not in the untouched model, within `layers` if given."""
    before = options.untouched
    if before is None or before.stats.shape != diagnosis.stats.shape:
        raise PlanError(
            "rule newly_sick compares with the untouched model; give the diagnosis of that model"
        )
    fell = [head for head in diagnosis.sick if not before.is_sick[head]]
    return SelectedHeads(_some(_within(fell, options.layers), "no head has become sick"))


def band(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """A range of head indices × a range of layers: sick heads are operated on, others watched."""
    first, last = options.band or (0, diagnosis.stats.shape[1] - 1)
    inside = [
        head for head in _within(_every(diagnosis), options.layers) if first <= head.head <= last
    ]
    sick_heads = tuple(head for head in inside if diagnosis.is_sick[head])
    others = tuple(head for head in inside if not diagnosis.is_sick[head])
    return SelectedHeads(_some(sick_heads, "no sick head in the band"), watch=others)


def heads(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """Exactly the heads named, sick or not."""
    return SelectedHeads(_some(options.heads or (), "no head is named"))


def column(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """One head index in all layers, or within `layers`: operated on whether sick or not."""
    every = _within(_every(diagnosis), options.layers)
    return SelectedHeads(_some([h for h in every if h.head == options.column], "no such layers"))


def random(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """In every layer as many heads as are sick there, drawn uniformly from all of its heads.

    A control for "any heads would do". Sick heads may be drawn too; the notes say how many were.
    """
    rng = np.random.default_rng(options.seed)
    width = diagnosis.stats.shape[1]
    drawn = [
        HeadId(layer, int(head))
        for layer, count in enumerate(diagnosis.per_layer)
        for head in sorted(rng.choice(width, size=int(count), replace=False))
    ]
    operated = _some(drawn, "no sick head to count")
    overlap = sum(bool(diagnosis.is_sick[head]) for head in operated)
    return SelectedHeads(
        operated, notes=(f"{overlap} of the {len(operated)} heads drawn are sick",)
    )


def matched(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """In every layer as many healthy heads as are sick there, with the nearest slopes.

    The control for position: the slope decides how cheaply a head can reach position 0.
    """
    matches: list[HeadId] = []
    notes: list[str] = []
    for layer, count in enumerate(diagnosis.per_layer):
        targets = np.flatnonzero(diagnosis.is_sick[layer])
        pool = np.flatnonzero(diagnosis.verdicts[layer] == "healthy")
        picked = nearest(diagnosis.stats.slopes[layer], targets, pool)
        matches += [HeadId(layer, head) for head in picked]
        if len(picked) < count:
            notes.append(
                f"layer {layer}: {count} sick heads, but only {len(picked)} healthy to match"
            )
    operated = _some(matches, "no sick head that a healthy one could match")
    return SelectedHeads(operated, notes=tuple(notes))


def idle(diagnosis: Diagnosis, options: RuleOptions) -> SelectedHeads:
    """Sick heads that do no work: as many as can be ablated together for at most `max_cost`.

    See `idle_heads.find_idle`. Single costs do not add up — heads stand in for each other — so only
    the joint cost counts. It is a mean over the text that it was measured on; so that it keeps to
    the limit on other text, too, the upper end of its interval has to. `heads` limits the choice
    to the sick ones among them.
    """
    if options.cost is None:
        raise PlanError("rule idle needs the cost of ablating heads; give the model and a corpus")
    sick_heads = [h for h in diagnosis.sick if options.heads is None or h in options.heads]
    limited = _within(sick_heads, options.layers)
    candidates = _some(limited, "no sick head among those heads and layers")
    idle_heads = find_idle(candidates, options.cost, options.max_cost)
    if idle_heads.cost is None:
        cheapest = min(candidates, key=lambda head: idle_heads.singles[head])
        raise NothingToOperate(
            f"no sick head can be ablated for {options.max_cost:g} nats or less; the cheapest, "
            f"{cheapest}, costs {'about ' if idle_heads.estimated else ''}"
            f"{idle_heads.singles[cheapest]:.4f}: raise --max-cost or choose another rule"
        )
    left = [head for head in candidates if head not in idle_heads.heads]
    names = ", ".join(map(str, left))
    notes = (
        f"{len(idle_heads.heads)} of {len(candidates)} sick heads are idle: ablating them together "
        f"({options.ablation_mode}) costs {_in_words(idle_heads.cost, options.max_cost)}; "
        "evaluate --plan on other text says what they cost there",
        *([f"left out, because they would exceed the limit: {names}"] if left else []),
    )
    return SelectedHeads(
        tuple(sorted(idle_heads.heads)),
        (),
        notes,
        {head: idle_heads.singles[head] for head in idle_heads.heads},
        idle_heads.cost.value,
        idle_heads.estimated,
    )


def _in_words(cost: Estimate, limit: float) -> str:
    if not isfinite(cost.high):
        return f"{cost.value:.4f} nats, limit {limit:g}, on the text they were chosen by"
    return (
        f"{cost.value:.4f} nats, its 95 % interval over documents ending at {cost.high:.4f} within "
        f"the limit {limit:g}, on the text they were chosen by"
    )


@dataclass(frozen=True)
class Rule:
    """A rule and which fields of `RuleOptions` it cannot do without, and which it may use."""

    select: Callable[[Diagnosis, RuleOptions], SelectedHeads]
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


RULES: dict[str, Rule] = {
    "sick": Rule(sick, takes=frozenset({"layers"})),
    "newly_sick": Rule(newly_sick, needs=frozenset({"untouched"}), takes=frozenset({"layers"})),
    "band": Rule(band, needs=frozenset({"band"}), takes=frozenset({"layers"})),
    "heads": Rule(heads, needs=frozenset({"heads"})),
    "column": Rule(column, needs=frozenset({"column"}), takes=frozenset({"layers"})),
    "random": Rule(random),
    "matched": Rule(matched),
    "idle": Rule(idle, takes=frozenset({"layers", "heads"})),
}


def _every(diagnosis: Diagnosis) -> tuple[HeadId, ...]:
    return heads_where(diagnosis.verdicts != NO_ATTENTION)


def _within(candidates: Sequence[HeadId], layers: tuple[int, int] | None) -> tuple[HeadId, ...]:
    first, last = layers or (0, max((head.layer for head in candidates), default=0))
    return tuple(head for head in candidates if first <= head.layer <= last)


def _some(selected: Sequence[HeadId], otherwise: str) -> tuple[HeadId, ...]:
    if not selected:
        raise NothingToOperate(f"{otherwise}: there is nothing to operate on")
    return tuple(sorted(selected))
