"""The files of a checkpoint with slices written in: every other bit is as it was stored."""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from headsurgeon.errors import ModelError, PatchError
from headsurgeon.models.origin import find_stored
from headsurgeon.models.stored import StoredTensor, stored_tensors, weight_files
from headsurgeon.models.weights import ordinary
from headsurgeon.operation.patient import Patient
from headsurgeon.operation.slice_maps import not_finite


def write_as_stored(patient: Patient, source: Path, target: Path) -> None:
    """Copies the weight files of `source`, and writes the slices in at their places.

    Each slice is rounded to the precision its own tensor is stored in; files, their headers and
    their index stay the same.

    Raises:
        ModelError: the checkpoint stores an operated tensor in another form than the model has it.
        PatchError: a slice holds values that its tensor's precision does not have.
    """
    places = _places(patient, source)
    merged = {name: _merged(patient, name, place) for name, place in places.items()}
    rounded = {name: patient.maps[name].read(tensor) for name, tensor in merged.items()}
    fault = not_finite(rounded, patient.maps, patient.heads, patient.layout)
    if fault is not None:
        raise PatchError(f"in the precision it is stored in, {fault}; merge with --dtype fp32")
    for file in weight_files(str(source)):
        shutil.copyfile(file, target / file.name)
    if not (source / SAFE_WEIGHTS_NAME).is_file():
        shutil.copyfile(source / SAFE_WEIGHTS_INDEX_NAME, target / SAFE_WEIGHTS_INDEX_NAME)
    for name, place in places.items():
        _overwrite(target / place.file.name, place.name, merged[name])


def _places(patient: Patient, source: Path) -> dict[str, StoredTensor]:
    stored = stored_tensors(str(source))
    places = {}
    for name in patient.maps:
        place = find_stored(stored, name, patient.model.get_parameter(name))
        if place is None:
            raise ModelError(
                f"{source} stores {name} under another name or in another form, so it cannot be "
                "written as it is stored; choose a precision with --dtype"
            )
        places[name] = place
    return places


def _merged(patient: Patient, name: str, place: StoredTensor) -> Tensor:
    tensor = place.read()
    if not ordinary(tensor):
        raise ModelError(
            f"{place.file} stores {place.name} as {place.dtype}; expected fp32, bf16 or fp16"
        )
    with torch.no_grad():
        patient.maps[name].write(tensor, patient.contents()[name].detach().cpu())
    return tensor


def _overwrite(file: Path, name: str, tensor: Tensor) -> None:
    """Puts the values of one tensor in the place of those the file has for it."""
    content = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        start, end = json.loads(opened.read(length))[name]["data_offsets"]
        if end - start != len(content):
            raise ModelError(f"{file}: {name} has {end - start} bytes, expected {len(content)}")
        opened.seek(8 + length + start)
        opened.write(content)
