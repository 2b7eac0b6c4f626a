"""Patches: safetensors files that hold only the slices, and say which base they belong to."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.errors import PatchError, SettingsError
from headsurgeon.heads import check_heads
from headsurgeon.models.fingerprint import fingerprint, fingerprints, others
from headsurgeon.models.forward import model_id
from headsurgeon.operation.operating import check_operable, open_patient
from headsurgeon.operation.patch_file import DTYPES, KIND, PatchContent, SliceLayout, read_content
from headsurgeon.operation.patient import Patient
from headsurgeon.operation.tensor_file import write_tensors


def save_patch(patient: Patient, path: Path | str, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a patient's slices, whatever state it is in.

    Metadata, all strings: `kind`, `schema`, `headsurgeon`, `model`, `fingerprint` (of the stock
    model) and `fingerprints` (of each touched tensor), `others` (of all other parameters
    together), `plan` (YAML), `seed`, `init`, `output_start`, `layout` (for each tensor the axis
    and runs of indices it takes), `content` (SHA-256 of the values and of the other metadata).
    Tensors have the names of the parameters they belong to.

    Args:
        path: the file; replaced atomically.
        dtype: float32, or bfloat16 for half the size, rounded.

    Raises:
        SettingsError: another dtype.
        PatchError: a slice holds NaN or infinity, perhaps because training diverged; names its
            tensor and head. An earlier file stays.
        WriteError: the file could not be written.
    """
    if dtype not in DTYPES:
        raise SettingsError(f"a patch is saved in float32 or bfloat16, not {dtype}")
    tensors = {
        name: slice_.detach().to("cpu", dtype).contiguous()
        for name, slice_ in patient.named_slices().items()
    }
    fault = not_finite(patient, tensors)
    if fault is not None:
        raise PatchError(
            f"cannot save {path}: {fault}; training diverged, or the file it came from is damaged"
        )
    metadata = {
        "model": patient.plan.model or model_id(patient.model),
        "fingerprint": patient.base_fingerprint,
        "fingerprints": json.dumps(patient.fingerprints),
        "plan": patient.plan.to_yaml(),
        "others": others(patient.model, patient.fingerprints),
        "seed": str(patient.seed),
        "init": patient.init,
        "output_start": patient.output_start,
        "layout": json.dumps(_layout(patient)),
    }
    write_tensors(path, KIND, tensors, metadata)
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
    content = read_content(path)
    metadata = content.metadata
    layout = layout_of(model)
    check_heads(content.plan.operated, layout.layers, layout.heads, layout.attention_layers)
    checked = _check_base(model, layout, content, path)
    patient = open_patient(
        model,
        layout,
        content.plan,
        content.seed,
        metadata["init"],
        metadata["output_start"],
        planned_here=False,
    )
    try:
        _load(patient, content, path)
        patient.merge()
    except BaseException:
        patient.revert()
        raise
    patient.checked = checked
    return patient


def read_patch(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and slices of a patch file, checked against its own hash and one another.

    Raises:
        PatchError: no such file, not a patch, cut short or altered, of a newer schema, with entries
            that are missing or make no sense, or with slices that are no finite fp32 or bf16.
    """
    content = read_content(path)
    return content.metadata, content.tensors


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


def _load(patient: Patient, content: PatchContent, path: Path | str) -> None:
    expected = {
        name: SliceLayout(slice_map.axis, list(slice_map.runs))
        for name, slice_map in patient.maps.items()
    }
    if content.layout != expected:
        raise PatchError(f"{path}: its slices are laid out differently from this model's")
    slices = patient.named_slices()
    for name, slice_ in slices.items():
        # a smaller one would silently be repeated
        if content.tensors[name].shape != slice_.shape:
            raise PatchError(f"{path}: {name} is not of the shape {list(slice_.shape)}")
    rounded = {
        name: tensor.to(patient.model.get_parameter(name).dtype)
        for name, tensor in content.tensors.items()
    }
    fault = not_finite(patient, rounded)
    if fault is not None:
        raise PatchError(f"{path}: in the precision of this model {fault}; load it in bf16 or fp32")
    with torch.no_grad():
        for name, slice_ in slices.items():
            slice_.copy_(content.tensors[name])


def not_finite(patient: Patient, values: Mapping[str, Tensor]) -> str | None:
    """Says which tensor and which head hold NaN or infinity; None where all values are finite."""
    for name, value in values.items():
        if bool(torch.isfinite(value).all()):
            continue
        axis, index = patient.maps[name].axis, patient.maps[name].index()
        rest = [other for other in range(value.ndim) if other != axis]
        whole = torch.isfinite(value).all(dim=rest) if rest else torch.isfinite(value)
        bad = set(index[(~whole).cpu()].tolist())
        heads = [
            str(head)
            for head in patient.heads
            for blocks in patient.layout.head_blocks(head.layer, head.head).values()
            for block in blocks
            if block.parameter == name
            and not bad.isdisjoint(range(block.start, block.start + block.length))
        ]
        return f"{name} ({', '.join(dict.fromkeys(heads))}) holds NaN or infinity"
    return None


def _layout(patient: Patient) -> dict[str, Any]:
    return {
        name: {"axis": slice_map.axis, "runs": slice_map.runs}
        for name, slice_map in patient.maps.items()
    }
