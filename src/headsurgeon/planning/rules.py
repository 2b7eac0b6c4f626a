"""Rules: which heads of a diagnosis are to be operated on. One small function each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headsurgeon.diagnosis.diagnosis import Diagnosis, heads_where
from headsurgeon.errors import PlanError
from headsurgeon.heads import NO_ATTENTION, HeadId
from headsurgeon.planning.matching import nearest

Cost = Callable[[Sequence[HeadId]], float]
"""Loss that ablating a set of heads together costs, nats per token."""


@dataclass(frozen=True)
class Request:
    """What the caller asks of a rule; every rule reads only the fields it lists in `RULES`."""

    heads: tuple[HeadId, ...] | None = None
    band: tuple[int, int] | None = None
    layers: tuple[int, int] | None = None
    column: int | None = None
    seed: int = 0
    cost: Cost | None = None
    max_cost: float = 0.05
    ablation_mode: str = "zero"


@dataclass(frozen=True)
class Choice:
    """What a rule answers: heads to operate on, healthy heads to watch, remarks, known costs."""

    operate: tuple[HeadId, ...]
    watch: tuple[HeadId, ...] = ()
    notes: tuple[str, ...] = ()
    costs: Mapping[HeadId, float] = field(default_factory=dict)
    joint_cost: float | None = None


def sick(diagnosis: Diagnosis, request: Request) -> Choice:
    """Every sick head, within `layers` if given."""
    return Choice(_some(_within(diagnosis.sick, request.layers), "no sick head in those layers"))


def band(diagnosis: Diagnosis, request: Request) -> Choice:
    """A range of head indices × a range of layers: sick heads are operated on, others watched."""
    first, last = request.band or (0, diagnosis.stats.shape[1] - 1)
    inside = [
        head for head in _within(_every(diagnosis), request.layers) if first <= head.head <= last
    ]
    chosen = tuple(head for head in inside if diagnosis.is_sick[head])
    others = tuple(head for head in inside if not diagnosis.is_sick[head])
    return Choice(_some(chosen, "no sick head in the band"), watch=others)


def heads(diagnosis: Diagnosis, request: Request) -> Choice:
    """Exactly the heads named, sick or not."""
    return Choice(_some(request.heads or (), "no head is named"))


def column(diagnosis: Diagnosis, request: Request) -> Choice:
    """One head index in all layers, or within `layers`: operated on whether sick or not."""
    every = _within(_every(diagnosis), request.layers)
    return Choice(_some([h for h in every if h.head == request.column], "no such layers"))


def random(diagnosis: Diagnosis, request: Request) -> Choice:
    """In every layer as many heads as are sick there, drawn uniformly from all of its heads.

    A control for "any heads would do". Sick heads may be drawn too; the notes say how many were.
    """
    rng = np.random.default_rng(request.seed)
    width = diagnosis.stats.shape[1]
    drawn = [
        HeadId(layer, int(head))
        for layer, count in enumerate(diagnosis.per_layer)
        for head in sorted(rng.choice(width, size=int(count), replace=False))
    ]
    chosen = _some(drawn, "no sick head to count")
    overlap = sum(bool(diagnosis.is_sick[head]) for head in chosen)
    return Choice(chosen, notes=(f"{overlap} of the {len(chosen)} heads drawn are sick",))


def matched(diagnosis: Diagnosis, request: Request) -> Choice:
    """In every layer as many healthy heads as are sick there, with the nearest slopes.

    The control for position: the slope decides how cheaply a head can reach position 0.
    """
    chosen: list[HeadId] = []
    notes: list[str] = []
    for layer, count in enumerate(diagnosis.per_layer):
        targets = np.flatnonzero(diagnosis.is_sick[layer])
        pool = np.flatnonzero(diagnosis.verdicts[layer] == "healthy")
        picked = nearest(diagnosis.stats.slopes[layer], targets, pool)
        chosen += [HeadId(layer, head) for head in picked]
        if len(picked) < count:
            notes.append(
                f"layer {layer}: {count} sick heads, but only {len(picked)} healthy to match"
            )
    return Choice(_some(chosen, "no sick head that a healthy one could match"), notes=tuple(notes))


def idle(diagnosis: Diagnosis, request: Request) -> Choice:
    """Sick heads that do no work: as many as can be ablated together for at most `max_cost`.

    Greedy: heads are tried in the order of what ablating each alone costs, and one that would take
    the joint cost above the limit is left out. Once a head alone costs more than is left up to the
    limit, it and all after it are left out untried. Single costs do not add up — heads stand in for
    each other — so only the joint cost counts. It is a mean over the text it was measured on,
    without an interval, and the heads were chosen by it: on other text the set costs more rather
    than less. `heads` limits the choice to the sick ones among them.
    """
    if request.cost is None:
        raise PlanError("rule idle needs the cost of ablating heads; give the model and a corpus")
    sick_heads = [h for h in diagnosis.sick if request.heads is None or h in request.heads]
    limited = _within(sick_heads, request.layers)
    candidates = _some(limited, "no sick head among those heads and layers")
    costs = {head: request.cost([head]) for head in candidates}
    chosen: list[HeadId] = []
    joint = 0.0
    for head in sorted(candidates, key=lambda head: (np.nan_to_num(costs[head], nan=np.inf), head)):
        if costs[head] > request.max_cost - joint:
            break
        # the first head alone is a set whose cost is known
        together = request.cost([*chosen, head]) if chosen else costs[head]
        if together <= request.max_cost:
            chosen.append(head)
            joint = together
    if not chosen:
        cheapest = min(candidates, key=lambda head: costs[head])
        raise PlanError(
            f"no sick head can be ablated for {request.max_cost:g} nats or less; the cheapest, "
            f"{cheapest}, costs {costs[cheapest]:.4f}: raise --max-cost or choose another rule"
        )
    left = [head for head in candidates if head not in chosen]
    names = ", ".join(map(str, left))
    notes = (
        f"{len(chosen)} of {len(candidates)} sick heads are idle: ablating them together "
        f"({request.ablation_mode}) costs "
        f"{joint:.4f} nats, limit {request.max_cost:g}, on the text they were chosen by; "
        "evaluate --plan on other text tells what they cost there",
        *([f"left out, there being no room for what they do: {names}"] if left else []),
    )
    return Choice(tuple(sorted(chosen)), (), notes, {h: costs[h] for h in chosen}, joint)


@dataclass(frozen=True)
class Rule:
    """A rule and which fields of a `Request` it cannot do without, and which it may use."""

    choose: Callable[[Diagnosis, Request], Choice]
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


RULES: dict[str, Rule] = {
    "sick": Rule(sick, takes=frozenset({"layers"})),
    "band": Rule(band, needs=frozenset({"band"}), takes=frozenset({"layers"})),
    "heads": Rule(heads, needs=frozenset({"heads"})),
    "column": Rule(column, needs=frozenset({"column"}), takes=frozenset({"layers"})),
    "random": Rule(random),
    "matched": Rule(matched),
    "idle": Rule(idle, takes=frozenset({"layers", "heads"})),
}


def _every(diagnosis: Diagnosis) -> tuple[HeadId, ...]:
    return heads_where(diagnosis.verdicts != NO_ATTENTION)


def _within(found: Sequence[HeadId], layers: tuple[int, int] | None) -> tuple[HeadId, ...]:
    first, last = layers or (0, max((head.layer for head in found), default=0))
    return tuple(head for head in found if first <= head.layer <= last)


def _some(found: Sequence[HeadId], otherwise: str) -> tuple[HeadId, ...]:
    if not found:
        raise PlanError(f"{otherwise}: there is nothing to operate on")
    return tuple(sorted(found))
