"""From a diagnosis and a rule to a plan."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from transformers import PreTrainedModel

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.registry import layout_of
from headsurgeon.arguments import checked
from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.errors import NothingToOperate, PlanError
from headsurgeon.heads import HeadId, check_heads, parse_heads
from headsurgeon.models.weights import quantised
from headsurgeon.planning import AblationMode, Cost, Costs, PlainCosts, Plan, PlannedHead, Role
from headsurgeon.planning.idle_heads import expected_measurements
from headsurgeon.planning.rules import RULES, RuleOptions, SelectedHeads
from headsurgeon.records import snake_case
from headsurgeon.starts import choose_init, choose_output_start

_QUANTISED = (
    "diagnosed in 8 or 4 bit, so without a fingerprint: to be carried out on the model of that "
    "name in bf16, fp16 or fp32"
)
# so many heads are ablated one by one for what an estimate of all takes
_FEW = 3
# What a plan tells about each head, besides verdict and ablation cost.
_SHOWN = ("first_token_mass", "entropy", "mean_distance", "output_norm")


@checked
def plan(
    diagnosis: Diagnosis,
    rule: str = "sick",
    *,
    heads: Iterable[str | HeadId | tuple[int, int]] | None = None,
    band: tuple[int, int] | None = None,
    layers: tuple[int, int] | None = None,
    column: int | None = None,
    watch: Iterable[str | HeadId | tuple[int, int]] = (),
    untouched: Diagnosis | None = None,
    cost: Costs | Cost | None = None,
    max_cost: float = 0.05,
    ablation_mode: AblationMode = "zero",
    init: str = "xavier_uniform_head",
    output_start: str = "zero_output",
    seed: int = 0,
    model: PreTrainedModel | None = None,
    layout: Layout | None = None,
) -> Plan:
    """Chooses heads by a rule and writes down why.

    Args:
        diagnosis: verdicts and statistics.
        rule: a name in `rules.RULES`.
        heads: for rule `heads`: the heads, such as `L5H14`; for `idle`: those it may choose from.
        band: for rule `band`: first and last head index, inclusive.
        layers: for `sick`, `newly_sick`, `band`, `column` and `idle`: first and last layer,
            inclusive.
        column: for rule `column`: the head index.
        watch: heads to follow besides those that the rule watches; one that is operated on is
            not watched.
        untouched: for rule `newly_sick`: the diagnosis of the model before any operation.
        cost: loss that ablating a set of heads together costs, nats per token: what
            `ablation_cost` gives, or a function of one's own. With it the plan shows what each
            operated head and all of them together cost now, and which costs of single heads are
            estimates; `idle` needs it.
        max_cost: for rule `idle`: limit of the joint cost, nats per token, and of the upper end of
            its interval where `cost` has one.
        ablation_mode: how `cost` ablates heads, which the plan records: `zero` or `mean`.
        init: how Q, K and V start, a name in `starts.INITS`, perhaps with parameters; the plan
            records all of them.
        output_start: what a head's output is at step 0, a name in `starts.OUTPUT_STARTS`.
        seed: seed of rule `random` and of the initialisation.
        model: the model that was diagnosed; with it the plan carries its fingerprints, unless it is
            held in 8 or 4 bit: then the plan is for the model that it was made from, by its name.
        layout: its layout, for remarks on shared keys and values; found from `model` if given.

    Returns:
        The plan, heads sorted.

    Raises:
        PlanError: unknown rule, options that do not fit it, or ranges the model does not have.
        NothingToOperate: no head fits the rule.
        HeadError: a named head that the model does not have, or in a layer without attention.
        SettingsError: an unknown start, or parameters that it does not take.
    """
    rule = snake_case(rule)
    start, output = choose_init(init), choose_output_start(output_start)
    costs = PlainCosts(cost) if not (cost is None or isinstance(cost, Costs)) else cost
    options = RuleOptions(
        heads=None if heads is None else parse_heads(heads),
        band=band,
        layers=layers,
        column=column,
        untouched=untouched,
        seed=seed,
        cost=costs,
        max_cost=max_cost,
        ablation_mode=ablation_mode,
    )
    _check(diagnosis, rule, options)
    if not diagnosis.sick and rule not in ("heads", "column"):
        raise NothingToOperate(
            f"the diagnosis found no sick head, so rule {rule} has nothing to operate on; "
            "rule heads operates on the heads you name"
        )
    if model is not None:
        layout = layout or layout_of(model)
    if layout is not None:
        _check_model(diagnosis, layout, None if model is None else model.config.model_type)
    selected = _watching(diagnosis, RULES[rule].select(diagnosis, options), parse_heads(watch))
    if costs is not None:
        selected = _with_costs(selected, costs)
    frozen = model is not None and quantised(model) is not None
    notes = (
        _measured_on(diagnosis),
        *selected.notes,
        *_borderline(diagnosis, selected),
        *(remarks_on(layout, selected.operate) if layout is not None else ()),
        *((_QUANTISED,) if frozen else ()),
    )
    planned = [_planned(diagnosis, head, "operate", selected) for head in selected.operate]
    planned += [_planned(diagnosis, head, "watch", selected) for head in selected.watch]
    result = Plan(
        model=diagnosis.stats.provenance.model,
        rule=rule,
        layers=layers,
        band=band,
        column=column,
        max_cost=max_cost if rule == "idle" else None,
        heads=tuple(sorted(planned, key=lambda head: head.id)),
        thresholds=diagnosis.thresholds.model_dump(),
        init=start.name,
        output_start=output.name,
        seed=seed,
        ablation_mode=ablation_mode,
        joint_cost=selected.joint_cost,
        notes=notes,
    )
    if model is None or layout is None or frozen:
        return result
    from headsurgeon.models.fingerprint import attention, fingerprint, others

    return result.replace(
        fingerprint=fingerprint(model, layout), others=others(model, attention(model, layout))
    )


def _check_model(diagnosis: Diagnosis, layout: Layout, family: str | None) -> None:
    """Refuses a model that cannot be the one that was diagnosed."""
    stats = diagnosis.stats
    if (layout.layers, layout.heads) != stats.shape:
        made = "{} layers of {} heads".format(*stats.shape)
        raise PlanError(
            f"the diagnosis is of a model with {made}, this one ({layout.family}) has "
            f"{layout.layers} layers of {layout.heads}: give the model that was diagnosed"
        )
    diagnosed = stats.provenance.family
    if family and diagnosed and family != diagnosed:
        raise PlanError(
            f"the diagnosis is of a model of family {diagnosed}, this one is {family}: give the "
            "model that was diagnosed"
        )


def remarks_on(layout: Layout, operated: Sequence[HeadId]) -> tuple[str, ...]:
    """What the architecture ties together: shared keys and values, norms over all heads.

    One remark says which heads share, whether or not the plan splits a group. K and V are operated
    on only where every head of a group is; elsewhere they stay frozen, and one remark per layer
    says for which heads.
    """
    notes = []
    if layout.joint_norm:
        notes.append(
            f"{layout.family} normalises the queries and keys of a layer jointly: operating on one "
            "head rescales the other heads of its layer"
        )
    group = layout.sharing(0)
    if len(group) == layout.heads > 1:
        notes.append("all heads of a layer share one set of keys and values")
    elif len(group) > 1:
        groups = f"H{group[0]}–H{group[-1]}, H{group[-1] + 1}–H{2 * group[-1] + 1} and so on"
        notes.append(f"every {len(group)} heads of a layer share keys and values: {groups}")
    for layer in sorted({head.layer for head in operated}):
        own = {head.head for head in operated if head.layer == layer}
        frozen = [head for head in sorted(own) if not own.issuperset(layout.sharing(head))]
        if frozen:
            names = ", ".join(str(HeadId(layer, head)) for head in frozen)
            notes.append(
                f"{names}: keys and values are shared with heads that are not operated on and stay "
                "frozen"
            )
    return tuple(notes)


def _check(diagnosis: Diagnosis, rule: str, options: RuleOptions) -> None:
    if rule not in RULES:
        raise PlanError(f"no rule {rule!r}; known are {', '.join(RULES)}")
    needs, takes = RULES[rule].needs, RULES[rule].takes
    faults = [
        f"rule {rule} needs {name}" for name in sorted(needs) if getattr(options, name) is None
    ]
    for name in ("heads", "band", "layers", "column"):
        if getattr(options, name) is not None and name not in needs | takes:
            faults.append(f"rule {rule} does not use {name}; leave it out or choose another rule")
    layer_count, head_count = diagnosis.stats.shape
    faults += _range_fault("band", options.band, head_count)
    faults += _range_fault("layers", options.layers, layer_count)
    if options.column is not None and not 0 <= options.column < head_count:
        faults.append(f"column: expected a head index 0–{head_count - 1}, got {options.column}")
    if not 0.0 <= options.max_cost < np.inf:
        faults.append(
            f"max_cost: expected a finite number of nats, 0 or more, got {options.max_cost}"
        )
    if not 0 <= options.seed < 2**63:
        faults.append(f"seed: expected 0 to 2^63 - 1, got {options.seed}")
    if faults:
        raise PlanError("; ".join(faults))
    attending = np.flatnonzero(diagnosis.stats.attends).tolist()
    check_heads(options.heads or (), layer_count, head_count, attending)


def _range_fault(name: str, given: tuple[int, int] | None, size: int) -> list[str]:
    if given is None or 0 <= given[0] <= given[1] < size:
        return []
    return [f"{name}: expected first–last within 0–{size - 1}, got {given[0]}–{given[1]}"]


def _watching(
    diagnosis: Diagnosis, selected: SelectedHeads, named: Sequence[HeadId]
) -> SelectedHeads:
    attending = np.flatnonzero(diagnosis.stats.attends).tolist()
    check_heads(named, *diagnosis.stats.shape, attending)
    watched = {*selected.watch, *named} - set(selected.operate)
    return replace(selected, watch=tuple(sorted(watched)))


def _with_costs(selected: SelectedHeads, costs: Costs) -> SelectedHeads:
    if selected.joint_cost is not None:
        return selected
    heads = selected.operate
    estimated = costs.not_estimated is None and len(heads) > _FEW
    singles = costs.estimates(heads) if estimated else {head: costs([head]) for head in heads}
    return replace(selected, costs=singles, joint_cost=costs(heads), estimated=estimated)


def expected_costs(rule: str, heads: int, estimated: bool) -> tuple[int, int]:
    """How often `plan` asks for estimates, and of about how many sets of heads for the joint cost.

    Args:
        rule: of the plan.
        heads: how many are operated on; for rule idle, how many it may choose from.
        estimated: whether what single heads cost can be estimated.
    """
    if rule == "idle":
        return int(estimated), expected_measurements(heads, estimated)
    if estimated and heads > _FEW:
        return 1, 1
    # each alone and all together, which for one is the same
    return 0, heads + (heads != 1)


def _planned(
    diagnosis: Diagnosis, head: HeadId, role: Role, selected: SelectedHeads
) -> PlannedHead:
    stats = diagnosis.stats
    numbers = {name: _rounded(float(stats.mean(name)[head])) for name in _SHOWN}
    numbers["slope"] = _rounded(float(stats.slopes[head]))
    numbers["null_mass"] = _rounded(float(stats.null_mass[head]))
    cost = selected.costs.get(head)
    return PlannedHead(
        id=head,
        role=role,
        verdict=diagnosis.verdict(head),
        statistics=numbers,
        ablation_cost=None if cost is None else _rounded(cost),
        cost_estimated=cost is not None and selected.estimated,
    )


def _rounded(value: float) -> float:
    # a plan is read and edited by people; diagnosis.json keeps every digit
    return float(f"{value:.4g}")


def _measured_on(diagnosis: Diagnosis) -> str:
    source = diagnosis.stats.provenance
    return (
        f"diagnosed on {source.corpus}, split {source.split}: {source.count} windows of "
        f"{source.length} tokens from {len(set(diagnosis.stats.documents))} documents"
    )


def _borderline(diagnosis: Diagnosis, selected: SelectedHeads) -> tuple[str, ...]:
    unsure = [str(head) for head in selected.operate if diagnosis.borderline[head]]
    return (f"borderline verdicts: {', '.join(unsure)}",) if unsure else ()
