"""Patches: safetensors files that hold only the slices, and say which base they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.errors import PatchError, SettingsError
from headsurgeon.heads import Plan, check_heads
from headsurgeon.models.fingerprint import combined, fingerprints
from headsurgeon.models.forward import model_id
from headsurgeon.operate.opening import open_patient
from headsurgeon.operate.patient import Patient
from headsurgeon.operate.tensor_file import read_tensors, write_tensors

_KIND = "patch"
_DTYPES = (torch.float32, torch.bfloat16)


def save_patch(patient: Patient, path: Path | str, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a patient's slices, whatever state it is in.

    Metadata, all strings: `kind`, `schema`, `headsurgeon`, `model`, `fingerprint` (of all touched
    stock tensors) and `fingerprints` (of each), `plan` (YAML), `seed`, `init`, `output_start`,
    `layout` (for each tensor the axis and runs of indices it takes), `content` (SHA-256 of the
    values). Tensors have the names of the parameters they belong to.

    Args:
        path: the file; replaced atomically.
        dtype: float32, or bfloat16 for half the size, rounded.

    Raises:
        SettingsError: another dtype.
        WriteError: the file could not be written.
    """
    if dtype not in _DTYPES:
        raise SettingsError(f"a patch is saved in float32 or bfloat16, not {dtype}")
    tensors = {
        name: slice_.detach().to("cpu", dtype).contiguous()
        for name, slice_ in patient.named_slices().items()
    }
    metadata = {
        "model": patient.plan.model or model_id(patient.model),
        "fingerprint": patient.base_fingerprint,
        "fingerprints": json.dumps(patient.fingerprints),
        "plan": patient.plan.to_yaml(),
        "seed": str(patient.seed),
        "init": patient.init,
        "output_start": patient.output_start,
        "layout": json.dumps(_layout(patient)),
    }
    write_tensors(path, _KIND, tensors, metadata)
    return Path(path)


def apply_patch(model: PreTrainedModel, path: Path | str) -> Patient:
    """Writes a patch into its base model.

    Returns:
        The patient, merged: `revert` takes the patch out again, `reopen` trains it further.

    Raises:
        PatchError: the file is damaged, or belongs to another base.
        UnsupportedModel, HeadError, ModelError, StateError: as for `operate`.
    """
    metadata, tensors = read_patch(path)
    layout = layout_of(model)
    plan = Plan.from_yaml(metadata["plan"])
    check_heads(plan.operated, layout.layers, layout.heads)
    expected = json.loads(metadata["fingerprints"])
    _check_base(model, expected, path, metadata["model"])
    patient = open_patient(
        model, layout, plan, int(metadata["seed"]), metadata["init"], metadata["output_start"]
    )
    try:
        _load(patient, json.loads(metadata["layout"]), tensors, path)
    except PatchError:
        patient.revert()
        raise
    patient.merge()
    return patient


def read_patch(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and slices of a patch file, checked against its own hash.

    Raises:
        PatchError: no such file, not a patch, cut short or altered, or of a newer schema.
    """
    tensors, metadata = read_tensors(path, _KIND, PatchError)
    return metadata, tensors


def _check_base(
    model: PreTrainedModel, expected: Mapping[str, str], path: Path | str, name: str
) -> None:
    known = dict(model.named_parameters())
    missing = sorted(set(expected) - set(known))
    if missing:
        raise PatchError(f"{path} was made for {name}; this model has no {missing[0]}")
    found = fingerprints(model, expected)
    if found != dict(expected):
        raise PatchError(
            f"{path} was made for {name} with fingerprint {combined(expected)}; this model "
            f"({model_id(model)}) has {combined(found)}: apply the patch to its own base"
        )


def _load(
    patient: Patient, layout: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path | str
) -> None:
    if layout != json.loads(json.dumps(_layout(patient))):
        raise PatchError(f"{path}: its slices are laid out differently from this model's")
    with torch.no_grad():
        for name, slice_ in patient.named_slices().items():
            slice_.copy_(tensors[name])


def _layout(patient: Patient) -> dict[str, Any]:
    return {
        name: {"axis": slice_map.axis, "runs": slice_map.runs}
        for name, slice_map in patient.maps.items()
    }
