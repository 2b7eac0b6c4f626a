"""Applying a patch: a model with the slices of a file in it, if it is the base they belong to."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.arguments import checked
from headsurgeon.errors import PatchError
from headsurgeon.heads import check_heads
from headsurgeon.models.fingerprint import fingerprint, fingerprints, others
from headsurgeon.models.forward import model_id
from headsurgeon.operation.operating import check_operable, open_patient
from headsurgeon.operation.patch import PatchContent, SliceLayout, read_content
from headsurgeon.operation.patient import Patient
from headsurgeon.operation.slice_maps import not_finite
from headsurgeon.operation.slices import SliceMap


@checked
def apply_patch(model: PreTrainedModel, path: Path | str) -> Patient:
    """Writes a patch into its base model.

    Returns:
        The patient, merged: `revert` takes the patch out again, `reopen` trains it further.

    Raises:
        PatchError: the file is damaged, or belongs to another base.
        UnsupportedModel, HeadError, ModelError, StateError: as for `operate`.
    """
    check_operable(model)
    content = read_content(path)
    layout = layout_of(model)
    check_heads(content.plan.operated, layout.layers, layout.heads, layout.attention_layers)
    checked = _check_base(model, layout, content, path)
    patient = open_patient(model, layout, content.plan, content.beginning, planned_here=False)
    try:
        check_layout(content, patient.maps, model, path)
        fill(patient, content.tensors, path)
        patient.merge()
    except BaseException:
        patient.revert()
        raise
    patient.checked, patient.read_as = checked, patient.digest()
    patient.step, patient.parts = content.step, content.parts
    return patient


def _check_base(
    model: PreTrainedModel, layout: Layout, content: PatchContent, path: Path | str
) -> str:
    """What was compared, in words."""
    expected, name = content.fingerprints, content.metadata["model"]
    known = dict(model.named_parameters())
    missing = sorted(set(expected) - set(known))
    if missing:
        raise PatchError(f"{path} was made for {name}; this model has no {missing[0]}")
    if fingerprints(model, expected) != expected:
        raise PatchError(
            f"{path} was made for {name} with fingerprint {content.metadata['fingerprint']}; this "
            f"model ({model_id(model)}) has {fingerprint(model, layout)}: "
            "apply the patch to its own base"
        )
    tensors = f"the {len(expected)} tensors that the patch touches are those it was made for"
    recorded = content.metadata.get("others")
    if recorded is None:
        return f"{tensors}; an older patch, so no other weight could be compared"
    if recorded == others(model, expected):
        return f"{tensors}, and so are all other weights"
    return f"{tensors}; other weights DIFFER from those of the model it was made on"


def check_layout(
    content: PatchContent, maps: Mapping[str, SliceMap], model: PreTrainedModel, path: Path | str
) -> None:
    """Refuses slices that do not lie in this model as `maps` says.

    Raises:
        PatchError: another layout, or a slice of another shape.
    """
    expected = {
        name: SliceLayout(slice_map.axis, list(slice_map.runs)) for name, slice_map in maps.items()
    }
    if content.layout != expected:
        raise PatchError(f"{path}: its slices are laid out differently from this model's")
    for name, slice_map in maps.items():
        shape = list(model.get_parameter(name).shape)
        shape[slice_map.axis] = slice_map.length
        # a smaller one would silently be repeated
        if list(content.tensors[name].shape) != shape:
            raise PatchError(f"{path}: {name} is not of the shape {shape}")


def fill(patient: Patient, values: Mapping[str, Tensor], path: Path | str) -> None:
    """Puts values into the slices of an open patient, as far as its model's precision has them.

    Raises:
        PatchError: one is beyond what that precision can hold.
    """
    rounded = {
        name: tensor.to(patient.model.get_parameter(name).dtype) for name, tensor in values.items()
    }
    fault = not_finite(rounded, patient.maps, patient.heads, patient.layout)
    if fault is not None:
        raise PatchError(f"{path}: in the precision of this model {fault}; load it in bf16 or fp32")
    with torch.no_grad():
        for name, slice_ in patient.contents().items():
            slice_.copy_(values[name])
