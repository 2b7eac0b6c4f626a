"""Patches: safetensors files that hold only the slices, and say which base they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.errors import PatchError, PlanError, SettingsError
from headsurgeon.heads import Plan, check_heads
from headsurgeon.models.fingerprint import fingerprint, fingerprints
from headsurgeon.models.forward import model_id
from headsurgeon.operate.init import INITS
from headsurgeon.operate.opening import check_operable, open_patient
from headsurgeon.operate.output_start import OUTPUT_STARTS
from headsurgeon.operate.patient import Patient
from headsurgeon.operate.tensor_file import read_tensors, write_tensors

_KIND = "patch"
_ENTRIES = (
    "model",
    "fingerprint",
    "fingerprints",
    "plan",
    "seed",
    "init",
    "output_start",
    "layout",
)
_DTYPES = (torch.float32, torch.bfloat16)


def save_patch(patient: Patient, path: Path | str, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a patient's slices, whatever state it is in.

    Metadata, all strings: `kind`, `schema`, `headsurgeon`, `model`, `fingerprint` (of the stock
    model) and `fingerprints` (of each touched tensor), `plan` (YAML), `seed`, `init`,
    `output_start`, `layout` (for each tensor the axis and runs of indices it takes), `content`
    (SHA-256 of the values and of the other metadata). Tensors have the names of the parameters
    they belong to.

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
    check_operable(model)
    metadata, tensors = read_patch(path)
    layout = layout_of(model)
    plan = Plan.from_yaml(metadata["plan"])
    check_heads(plan.operated, layout.layers, layout.heads, layout.attention_layers)
    _check_base(model, layout, metadata, path)
    patient = open_patient(
        model,
        layout,
        plan,
        int(metadata["seed"]),
        metadata["init"],
        metadata["output_start"],
        planned_here=False,
    )
    try:
        _load(patient, json.loads(metadata["layout"]), tensors, path)
        patient.merge()
    except BaseException:
        patient.revert()
        raise
    return patient


def read_patch(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and slices of a patch file, checked against its own hash.

    Raises:
        PatchError: no such file, not a patch, cut short or altered, of a newer schema, or with
            entries that are missing or make no sense.
    """
    tensors, metadata = read_tensors(path, _KIND, PatchError)
    missing = [name for name in _ENTRIES if name not in metadata]
    if missing:
        raise PatchError(f"{path}: the patch has no {', '.join(missing)}; save it again")
    faults = _faults(metadata, tensors)
    if faults:
        raise PatchError(f"{path}: {'; '.join(faults)}; save the patch again")
    return metadata, tensors


def _faults(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> list[str]:
    faults = []
    try:
        Plan.from_yaml(metadata["plan"])
    except PlanError as error:
        faults.append(str(error))
    if not metadata["seed"].isdecimal():
        faults.append(f"seed: expected a whole number from 0 up, got {metadata['seed']!r}")
    for name, known in (("init", INITS), ("output_start", OUTPUT_STARTS)):
        if metadata[name] not in known:
            faults.append(f"{name}: expected one of {', '.join(known)}, got {metadata[name]!r}")
    for name in ("fingerprints", "layout"):
        try:
            found = json.loads(metadata[name])
        except ValueError:
            found = None
        if not isinstance(found, dict) or not set(found) >= set(tensors):
            faults.append(f"{name}: expected a JSON object with an entry for every slice")
    return faults


def _check_base(
    model: PreTrainedModel, layout: Layout, metadata: Mapping[str, str], path: Path | str
) -> None:
    expected, name = json.loads(metadata["fingerprints"]), metadata["model"]
    known = dict(model.named_parameters())
    missing = sorted(set(expected) - set(known))
    if missing:
        raise PatchError(f"{path} was made for {name}; this model has no {missing[0]}")
    found = fingerprints(model, expected)
    if found != dict(expected):
        raise PatchError(
            f"{path} was made for {name} with fingerprint {metadata['fingerprint']}; this "
            f"model ({model_id(model)}) has {fingerprint(model, layout)}: "
            "apply the patch to its own base"
        )


def _load(
    patient: Patient, layout: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path | str
) -> None:
    if layout != json.loads(json.dumps(_layout(patient))):
        raise PatchError(f"{path}: its slices are laid out differently from this model's")
    slices = patient.named_slices()
    for name, slice_ in slices.items():
        # a smaller one would silently be repeated
        if name not in tensors or tensors[name].shape != slice_.shape:
            raise PatchError(f"{path}: {name} is not of the shape {list(slice_.shape)}")
    with torch.no_grad():
        for name, slice_ in slices.items():
            slice_.copy_(tensors[name])


def _layout(patient: Patient) -> dict[str, Any]:
    return {
        name: {"axis": slice_map.axis, "runs": slice_map.runs}
        for name, slice_map in patient.maps.items()
    }
