"""The files of a checkpoint with what was trained written in; every other bit is as stored."""

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
from headsurgeon.operation.full import FullLearner
from headsurgeon.operation.patient import Patient


def write_as_stored(learner: Patient | FullLearner, source: Path, target: Path) -> None:
    """Copies the weight files of `source`, and writes in at their places what was trained.

    Each tensor keeps the precision it is stored in; files, their headers and their index stay the
    same.

    Raises:
        ModelError: the checkpoint stores a trained tensor in another form than the model has it.
        PatchError: what was trained holds values that its tensor's precision does not have.
    """
    places = _places(learner, source)
    for file in weight_files(str(source)):
        shutil.copyfile(file, target / file.name)
    if not (source / SAFE_WEIGHTS_NAME).is_file():
        shutil.copyfile(source / SAFE_WEIGHTS_INDEX_NAME, target / SAFE_WEIGHTS_INDEX_NAME)
    for name, stored in places.items():
        for place in stored:
            tensor = place.read()
            if not ordinary(tensor):
                raise ModelError(
                    f"{place.file} stores {place.name} as {place.dtype}; expected fp32, bf16 or "
                    "fp16"
                )
            with torch.no_grad():
                fault = learner.write_into(name, tensor)
            if fault is not None:
                raise PatchError(
                    f"in the precision it is stored in, {fault}; merge with --dtype fp32"
                )
            _overwrite(target / place.file.name, place.name, tensor)


def _places(learner: Patient | FullLearner, source: Path) -> dict[str, list[StoredTensor]]:
    """Where each parameter that was trained is stored: tied ones perhaps under several names."""
    model, stored = learner.model, stored_tensors(str(source))
    names: dict[int, list[str]] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(value), []).append(name)
    places = {}
    for name in learner.contents():
        parameter = model.get_parameter(name)
        found = (find_stored(stored, each, parameter) for each in names[id(parameter)])
        places[name] = list({place.name: place for place in found if place is not None}.values())
        if not places[name]:
            raise ModelError(
                f"{source} stores {name} under another name or in another form, so it cannot be "
                "written as it is stored; choose a precision with --dtype"
            )
    return places


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
