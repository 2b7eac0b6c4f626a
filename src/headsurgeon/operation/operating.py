"""Carrying out a plan: checks first, then slices, fresh weights, and the outputs' start."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.arguments import checked
from headsurgeon.data import Windows, as_windows
from headsurgeon.errors import HeadError, ModelError, PlanError, SettingsError, StateError
from headsurgeon.heads import HeadId, check_heads
from headsurgeon.models.fingerprint import attention, combined, fingerprints, others, touched
from headsurgeon.models.forward import model_id
from headsurgeon.models.weights import check_whole
from headsurgeon.operation.beginning import Beginning
from headsurgeon.operation.patient import Patient, operated
from headsurgeon.operation.seeds import check_seed
from headsurgeon.operation.sharding import check_unsharded
from headsurgeon.operation.slice_maps import head_copy, output_biases
from headsurgeon.planning import Plan
from headsurgeon.starts import (
    Calibration,
    CalibrationRecord,
    HeadTensors,
    StartContext,
    choose_init,
    choose_output_start,
    looking_at_text,
)

# apart from the seed of Q, K and V, so that other draws do not move theirs
_NOISE = 0x9E3779B97F4A7C15


@checked
def operate(
    model: PreTrainedModel,
    plan: Plan,
    seed: int | None = None,
    *,
    init: str | None = None,
    output_start: str | None = None,
    calibration: Windows | Tensor | None = None,
) -> Patient:
    """Puts trainable slices in place of the planned heads' weights and gives them a fresh start.

    Args:
        model: a causal language model; changed in place until `merge` or `revert`.
        plan: the plan; heads with role `operate` are operated on.
        seed: seed of the initialisation; the plan's own unless given.
        init: a name in `starts.INITS`, perhaps with parameters such as `partial_reset(rho=0.3)`;
            the plan's own unless given.
        output_start: a name in `starts.OUTPUT_STARTS`; the plan's own unless given.
        calibration: text for starts that look at the model before they choose weights: windows of
            training text, some 32 of them, or bare token ids [count, length]. Their tokens count
            against a budget of training tokens (`Patient.calibration_tokens`). Other starts do not
            read them.

    Returns:
        The patient, open.

    Raises:
        UnsupportedModel: no layout describes the model.
        HeadError: the plan names heads that the model does not have, or in layers without any.
        PlanError: the plan operates on nothing, or was made for another model or other weights.
        ModelError: weights of these heads are NaN; weights of the model are quantised, or not in
            memory. Such a model can be measured alone.
        SettingsError: an unknown `init` or `output_start`, one that needs calibration windows and
            has none, or one that this family cannot have; windows that the model cannot read; a
            seed that is none.
        CorpusError: calibration tokens beyond the model's vocabulary, or padding.
        StateError: the model is being operated on already.
    """
    layout = layout_of(model)
    qkv = choose_init(init or plan.init)
    output = choose_output_start(output_start or plan.output_start)
    seed_used = check_seed(plan.seed if seed is None else seed)
    needy = looking_at_text(qkv.name, output.name)
    if needy and calibration is None:
        raise SettingsError(
            f"{' and '.join(needy)} looks at text before it chooses weights; give calibration "
            "windows: hs.operate(…, calibration=windows), such as hs.calibration_windows gives"
        )
    windows = as_windows(calibration) if needy and calibration is not None else None
    record = CalibrationRecord() if windows is None else CalibrationRecord.of(windows)
    beginning = Beginning(seed_used, qkv, output, record)
    patient = open_patient(model, layout, plan, beginning)
    try:
        _begin(patient, beginning, windows)
    except BaseException:
        patient.revert()
        raise
    patient.drawn_as = patient.digest()
    return patient


@torch.no_grad()
def _begin(patient: Patient, beginning: Beginning, windows: Windows | None) -> None:
    """Starts the heads, layers from the lowest up.

    Where a start looks at the model, operated heads that have not started yet are off: what it sees
    is the model in which these heads begin.
    """
    layout = patient.layout
    calibration = None if windows is None else Calibration(patient.model, layout, windows)
    generator = torch.Generator().manual_seed(beginning.seed)
    noise = torch.Generator().manual_seed(beginning.seed ^ _NOISE)
    tensors = patient.head_tensors()
    outputs = {head.id: head.weights["output"].clone() for head in tensors}
    if beginning.init.start.calibrated:
        for head in tensors:
            head.weights["output"].zero_()
    for layer in sorted({head.id.layer for head in tensors}):
        heads = [head for head in tensors if head.id.layer == layer]
        other = partial(_untouched_head, patient, layer)
        context = StartContext(layout, layer, generator, noise, other, calibration)
        beginning.init.apply(heads, context)
        for head in heads:
            head.weights["output"].copy_(outputs[head.id])
        beginning.output_start.apply(heads, context)


def _untouched_head(patient: Patient, layer: int, head: int) -> HeadTensors:
    """What a start may read of a head that is not operated on; see `StartContext.other`."""
    layout, named = patient.layout, HeadId(layer, head)
    check_heads([named], layout.layers, layout.heads, layout.attention_layers)
    if named in patient.heads:
        raise HeadError(f"{named} is operated on; a start may read the other heads of its layer")
    return head_copy(layout, named, patient.model)


def open_patient(
    model: PreTrainedModel,
    layout: Layout,
    plan: Plan,
    beginning: Beginning,
    planned_here: bool = True,
) -> Patient:
    """A patient whose slices still hold the stock weights; raises as `operate` does.

    `planned_here` says that the plan must be one for this model as it is; a patch is checked by the
    tensors it touches instead, and other layers may have been operated on since. The patient's plan
    says how the heads did start, so that whoever carries it out once more gets the same.
    """
    biases: list[str] = []
    if beginning.output_start.start.output_bias:
        biases = _output_biases(model, layout, plan, beginning)
    digests = checked_fingerprints(model, layout, plan, planned_here)
    digests |= fingerprints(model, biases)
    return Patient(
        model,
        layout,
        beginning.planned(plan),
        beginning,
        combined({name: digests[name] for name in digests if name not in biases}),
        {name: digests[name] for name in sorted({*touched(layout, plan.operated), *biases})},
    )


def _output_biases(
    model: PreTrainedModel, layout: Layout, plan: Plan, beginning: Beginning
) -> list[str]:
    names = list(output_biases(layout, plan.operated).values())
    known = dict(model.named_parameters())
    missing = [name for name in names if name not in known]
    if missing:
        raise SettingsError(
            f"{beginning.output_start.name} keeps a constant in the bias of the output projection, "
            f"and this {layout.family} model has none ({missing[0]}); use zero_output, or "
            "carry_value where the values have a bias"
        )
    return names


def checked_fingerprints(
    model: PreTrainedModel, layout: Layout, plan: Plan, planned_here: bool = True
) -> dict[str, str]:
    """Fingerprints of the attention projections of a model that `plan` suits; raises as `operate`.

    `planned_here` is that of `open_patient`.
    """
    check_operable(model)
    if not plan.operated:
        raise PlanError("the plan operates on no head; give at least one head the role operate")
    named = [head.id for head in plan.heads]
    check_heads(named, layout.layers, layout.heads, layout.attention_layers)
    digests = fingerprints(model, attention(model, layout))
    _check_own(model, touched(layout, plan.operated))
    for name in touched(layout, plan.operated):
        if not bool(torch.isfinite(model.get_parameter(name)).all()):
            raise ModelError(f"{name} holds NaN or infinity; this checkpoint is damaged")
    if planned_here:
        _check_plan(plan, model, digests)
    return digests


def _check_own(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Refuses parameters that are computed, or that stand elsewhere in the model as well."""
    places: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        places.setdefault(id(value), []).append(name)
    own = {name: group for group in places.values() for name in group}
    for name in names:
        if name not in own:
            raise ModelError(
                f"{name} is no parameter of this model but computed from others (weight_norm, "
                "perhaps); undo that first, such as with remove_parametrizations"
            )
        others = [other for other in own[name] if other != name]
        if others:
            raise ModelError(
                f"{name} is also {others[0]} (tied weights), so operating on a head would change "
                "what is no part of it; untie them first: give one a clone as its own nn.Parameter"
            )


def check_operable(model: PreTrainedModel) -> None:
    """Refuses, before anything is changed, a model that no patient can be made of.

    Raises:
        StateError: the model is being operated on already, or spread over several processes.
        ModelError: weights are quantised, or not in memory.
    """
    if operated(model):
        raise StateError(
            "this model is being operated on already; merge or revert that patient first"
        )
    check_unsharded(model)
    check_whole(model)


def _check_plan(plan: Plan, model: PreTrainedModel, digests: Mapping[str, str]) -> None:
    """The weights decide; a plan without their fingerprint is known by the name of its model.

    Args:
        digests: fingerprints of the attention projections of the model.
    """
    fingerprint_now = combined(digests)
    if plan.fingerprint is not None and plan.fingerprint != fingerprint_now:
        raise PlanError(
            f"the plan was made for other weights: it expects fingerprint {plan.fingerprint}, this "
            f"model has {fingerprint_now}; load the model the plan was made for ({plan.model}), or "
            "make a new plan"
        )
    # not without the other fingerprint, which a person takes out where a plan is meant for several
    known = plan.fingerprint is not None and plan.others is not None
    if known and plan.others != others(model, digests):
        raise PlanError(
            f"the plan was made on a model ({plan.model}) with the attention weights of this one "
            f"({model_id(model)}) and other weights besides (MLPs, norms, embeddings), so its "
            "verdicts and costs are not this model's; make a new plan for it, or set others: null "
            "in this one if the heads are to be operated on all the same"
        )
    name = model_id(model)
    if plan.fingerprint is None and not _same_model(plan.model, name):
        raise PlanError(
            f"the plan was made for {plan.model}, this model is {name}; load that one, or put this "
            "name into the plan if it is meant for both"
        )


def _same_model(planned: str, actual: str) -> bool:
    if not {"", "unnamed"}.isdisjoint({planned, actual}) or planned == actual:
        return True
    # a folder has many spellings
    return Path(planned).exists() and Path(planned).resolve() == Path(actual).resolve()
