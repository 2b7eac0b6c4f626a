"""`weights.safetensors`: a whole model as training left it, the heads it began with, and its base.

What a file says is checked before any of it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from headsurgeon.errors import PatchError
from headsurgeon.operation.beginning import (
    BEGINNING_ENTRIES,
    Beginning,
    in_one_line,
    read_beginning,
    read_plan,
    read_whole,
)
from headsurgeon.operation.tensor_file import kind_of, read_tensors, write_tensors
from headsurgeon.planning import Plan

KIND = "weights"
_ENTRIES = ("model", "fingerprint", "base", "plan", *BEGINNING_ENTRIES)


@dataclass(frozen=True)
class WeightsContent:
    """A file of weights, parsed.

    Attributes:
        tensors: every parameter by name, all finite; those that share their values once.
        plan: the heads that figures are about.
        beginning: how these started.
        model: id of the base.
        base: one SHA-256 over all parameters of the base.
        step: the step of a training run that the weights are from; None where no run wrote it.
        trained_before: whether the heads had been trained by themselves before everything was.
    """

    tensors: dict[str, Tensor]
    plan: Plan
    beginning: Beginning
    model: str
    base: str
    step: int | None
    trained_before: bool


def holds_whole_model(path: Path) -> bool:
    """Whether a file is one of weights, and no patch."""
    return kind_of(path) == KIND


def write_weights(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes every parameter of a model under its own name.

    Metadata, all strings: `kind`, `schema`, `headsurgeon`, `model`, `fingerprint` (of the base, as
    a plan records it), `base` (SHA-256 of all its parameters), `plan` (YAML), `seed`, `init`,
    `output_start` and `calibration` (how the plan's heads started, as in a patch), `content`
    (SHA-256 of the values and of the other metadata); of a training run also `step`; where the
    heads had been trained by themselves before, `trained_before`.

    Raises:
        WriteError: the file could not be written; an earlier one stays.
    """
    write_tensors(path, KIND, tensors, metadata)


def read_weights(path: Path | str) -> WeightsContent:
    """Metadata and parameters of such a file, checked against its own hash.

    Raises:
        PatchError: no such file, none of weights, cut short or altered, of a newer schema, with
            entries that are missing or make no sense, or with values that are not finite.
    """
    tensors, metadata = read_tensors(path, KIND, PatchError)
    missing = [name for name in _ENTRIES if name not in metadata]
    if missing:
        raise PatchError(
            f"{path}: it has no {', '.join(missing)}, so there is no telling what it belongs to; "
            "an early version wrote it: train again"
        )
    faults: list[str] = []
    plan = read_plan(metadata["plan"], faults)
    beginning = read_beginning(metadata, faults)
    step = read_whole("step", metadata["step"], faults) if "step" in metadata else None
    faults += [
        f"{name}: expected finite numbers"
        for name, tensor in sorted(tensors.items())
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all())
    ]
    if faults or plan is None or beginning is None:
        raise PatchError(f"{path}: {in_one_line(faults)}; copy the file again")
    return WeightsContent(
        tensors=tensors,
        plan=plan,
        beginning=beginning,
        model=metadata["model"],
        base=metadata["base"],
        step=step,
        trained_before="trained_before" in metadata,
    )
