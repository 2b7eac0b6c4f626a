"""Carrying out a plan: checks first, then slices, fresh weights, and the outputs' start."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.errors import ModelError, PlanError, SettingsError, StateError
from headsurgeon.heads import check_heads
from headsurgeon.models.fingerprint import attention, combined, fingerprints, touched
from headsurgeon.models.forward import model_id
from headsurgeon.models.weights import check_whole
from headsurgeon.operation.output_start import OUTPUT_STARTS, OutputStart
from headsurgeon.operation.patient import Patient, operated
from headsurgeon.operation.qkv_start import INITS, Init, InitContext
from headsurgeon.operation.seeds import check_seed
from headsurgeon.operation.sharding import check_unsharded
from headsurgeon.planning import Plan

Start = TypeVar("Start", bound=Callable[..., None])


def operate(
    model: PreTrainedModel,
    plan: Plan,
    seed: int | None = None,
    *,
    init: str | None = None,
    output_start: str | None = None,
) -> Patient:
    """Puts trainable slices in place of the planned heads' weights and gives them a fresh start.

    Args:
        model: a causal language model; changed in place until `merge` or `revert`.
        plan: the plan; heads with role `operate` are operated on.
        seed: seed of the initialisation; the plan's own unless given.
        init: a name in `INITS`; the plan's own unless given.
        output_start: a name in `OUTPUT_STARTS`; the plan's own unless given.

    Returns:
        The patient, open.

    Raises:
        UnsupportedModel: no layout describes the model.
        HeadError: the plan names heads that the model does not have, or in layers without any.
        PlanError: the plan operates on nothing, or was made for another model or other weights.
        ModelError: weights of these heads are NaN; weights of the model are quantised, or not in
            memory. Such a model can be measured alone.
        SettingsError: an unknown `init` or `output_start`, or a seed that is none.
        StateError: the model is being operated on already.
    """
    layout = layout_of(model)
    init_name = init or plan.init
    start_name = output_start or plan.output_start
    initialise: Init = _named("init", init_name, INITS)
    start: OutputStart = _named("output_start", start_name, OUTPUT_STARTS)
    chosen = check_seed(plan.seed if seed is None else seed)
    patient = open_patient(model, layout, plan, chosen, init_name, start_name)
    try:
        _begin(patient, initialise, start)
    except BaseException:
        patient.revert()
        raise
    return patient


def _begin(patient: Patient, initialise: Init, start: OutputStart) -> None:
    layout = patient.layout
    context = InitContext(
        hidden=layout.hidden,
        head_dim=layout.head_dim,
        initializer_range=layout.initializer_range,
        generator=torch.Generator().manual_seed(patient.seed),
    )
    with torch.no_grad():
        for head in patient.head_tensors():
            initialise(head, context)
            start(head)


def open_patient(
    model: PreTrainedModel,
    layout: Layout,
    plan: Plan,
    seed: int,
    init: str,
    output_start: str,
    planned_here: bool = True,
) -> Patient:
    """A patient whose slices still hold the stock weights; raises as `operate` does.

    `planned_here` says that the plan must be one for this model as it is; a patch is checked by the
    tensors it touches instead, and other layers may have been operated on since.
    """
    digests = checked_fingerprints(model, layout, plan, planned_here)
    return Patient(
        model,
        layout,
        plan,
        seed,
        init,
        output_start,
        combined(digests),
        {name: digests[name] for name in touched(layout, plan.operated)},
    )


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
    for name in touched(layout, plan.operated):
        if not bool(torch.isfinite(model.get_parameter(name)).all()):
            raise ModelError(f"{name} holds NaN or infinity; this checkpoint is damaged")
    if planned_here:
        _check_plan(plan, model, combined(digests))
    return digests


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


def _check_plan(plan: Plan, model: PreTrainedModel, found: str) -> None:
    """The weights decide; a plan without their fingerprint is known by the name of its model."""
    if plan.fingerprint is not None and plan.fingerprint != found:
        raise PlanError(
            f"the plan was made for other weights: it expects fingerprint {plan.fingerprint}, this "
            f"model has {found}; load the model the plan was made for ({plan.model}), or plan anew"
        )
    name = model_id(model)
    if plan.fingerprint is None and not _same_model(plan.model, name):
        raise PlanError(
            f"the plan was made for {plan.model}, this model is {name}; load that one, or put this "
            "name into the plan if it is meant for both"
        )


def _same_model(planned: str, found: str) -> bool:
    if not {"", "unnamed"}.isdisjoint({planned, found}) or planned == found:
        return True
    # a folder has many spellings
    return Path(planned).exists() and Path(planned).resolve() == Path(found).resolve()


def _named(kind: str, name: str, known: Mapping[str, Start]) -> Start:
    if name not in known:
        raise SettingsError(f"no {kind} {name!r}; known are {', '.join(sorted(known))}")
    return known[name]
