"""Patch files: safetensors with the slices alone, and which base they belong to.

What a file says is checked before any of it is used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
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
from headsurgeon.operation.tensor_file import read_tensors, write_tensors
from headsurgeon.operation.weights_file import holds_whole_model
from headsurgeon.planning import Plan
from headsurgeon.records import HIGHEST_SEED

KIND = "patch"
DTYPES = (torch.float32, torch.bfloat16)
ENTRIES = ("model", "fingerprint", "fingerprints", "plan", "layout", *BEGINNING_ENTRIES)
_Parsed = TypeVar("_Parsed")
_Index = Annotated[int, Field(ge=0, le=2**40)]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class SliceLayout:
    """Which part of a parameter a slice takes: the axis, and start and length of each run."""

    axis: Annotated[int, Field(ge=0, le=1)]
    runs: Annotated[list[tuple[_Index, _Index]], Field(min_length=1)]

    @property
    def length(self) -> int:
        """Number of indices."""
        return sum(length for _, length in self.runs)


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class PatchPart:
    """One of the operations that a composed patch was made of, in their order.

    Attributes:
        heads: the heads it operated on, by name.
        rule: the rule that chose them.
        init, output_start: how they started.
        seed: of what was random about that.
        step: the step of its training run that the slices are from; None where no run wrote them.
        fingerprint: of the model as it found it, as a plan records it.
    """

    heads: list[str]
    rule: str
    init: str
    output_start: str
    seed: Annotated[int, Field(ge=0, le=HIGHEST_SEED)]
    step: Annotated[int, Field(ge=0)] | None
    fingerprint: str


_FINGERPRINTS = TypeAdapter(dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]])
_LAYOUT = TypeAdapter(dict[str, SliceLayout])
_PARTS = TypeAdapter(list[PatchPart])


@dataclass(frozen=True)
class PatchContent:
    """A patch file, parsed.

    Attributes:
        metadata: all entries as the file has them.
        tensors: the slices by the name of the parameter they belong to, all finite.
        plan: the plan that was carried out.
        beginning: how its heads started.
        fingerprints: of each tensor that the operation touched, before it.
        layout: which part of its parameter each slice takes.
        step: the step of a training run that the slices are from; None where no run wrote it.
        parts: the operations it was composed of; empty where it is of one.
    """

    metadata: dict[str, str]
    tensors: dict[str, Tensor]
    plan: Plan
    beginning: Beginning
    fingerprints: dict[str, str]
    layout: dict[str, SliceLayout]
    step: int | None
    parts: tuple[PatchPart, ...] = ()


def write_patch(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes slices, named after the parameters they belong to.

    Metadata, all strings: `kind`, `schema`, `headsurgeon`, `model`, `fingerprint` (of the stock
    model) and `fingerprints` (of each touched tensor), `others` (of all other parameters
    together), `plan` (YAML), `seed`, `init`, `output_start`, `calibration` (tokens a start looked
    at, their number and SHA-256, if it did), `layout` (for each tensor the axis and runs of indices
    it takes), `content` (SHA-256 of the values and of the other metadata); of a training run also
    `step`; of a composed patch `parts`, the operations it was made of.

    Raises:
        WriteError: the file could not be written; an earlier one stays.
    """
    write_tensors(path, KIND, tensors, metadata)


def read_patch(path: Path | str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and slices of a patch file, checked against its own hash and one another.

    Raises:
        PatchError: no such file, not a patch, cut short or altered, of a newer schema, with entries
            that are missing or make no sense, or with slices that are no finite fp32 or bf16.
    """
    content = read_content(path)
    return content.metadata, content.tensors


def read_content(path: Path | str) -> PatchContent:
    """Metadata and slices of a patch file, checked against its own hash and one another.

    Raises:
        PatchError: no such file, not a patch, cut short or altered, of a newer schema, with entries
            that are missing or make no sense, or with slices that are no finite fp32 or bf16.
    """
    if holds_whole_model(Path(path)):
        raise PatchError(
            f"{path} holds every weight of a model, not the slices of its heads: headsurgeon merge "
            "makes a checkpoint of it, hs.apply_weights(model, path) puts it on its base"
        )
    tensors, metadata = read_tensors(path, KIND, PatchError)
    missing = [name for name in ENTRIES if name not in metadata]
    if missing:
        raise PatchError(f"{path}: the patch has no {', '.join(missing)}; save it again")
    faults: list[str] = []
    plan = read_plan(metadata["plan"], faults)
    beginning = read_beginning(metadata, faults)
    step = read_whole("step", metadata["step"], faults) if "step" in metadata else None
    parts = _parts(metadata.get("parts"), faults)
    fingerprints = _parsed("fingerprints", _FINGERPRINTS.validate_json, metadata, tensors, faults)
    layout = _parsed("layout", _LAYOUT.validate_json, metadata, tensors, faults)
    if not tensors:
        faults.append("it holds no slice")
    if layout is not None and set(layout) != set(tensors):
        faults.append("layout: expected an entry for every slice and for nothing else")
        layout = None
    for name, tensor in sorted(tensors.items()):
        fault = _fault_of(name, tensor, layout, plan)
        if fault:
            faults.append(fault)
    if faults or plan is None or beginning is None or fingerprints is None or layout is None:
        raise PatchError(f"{path}: {in_one_line(faults)}; save the patch again")
    return PatchContent(metadata, tensors, plan, beginning, fingerprints, layout, step, parts)


def _parts(text: str | None, faults: list[str]) -> tuple[PatchPart, ...]:
    try:
        return () if text is None else tuple(_PARTS.validate_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        faults.append(f"parts: expected a list of operations: {first['msg'][:200]}")
        return ()


def _parsed(
    name: str,
    parse: Callable[..., dict[str, _Parsed]],
    metadata: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    faults: list[str],
) -> dict[str, _Parsed] | None:
    try:
        entries = parse(metadata[name])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step)[:80] for step in first["loc"][:4])
        at = f" at {where}" if where else ""
        faults.append(
            f"{name}: expected a JSON object with an entry for every slice: "
            f"{first['msg'][:200]}{at}"
        )
        return None
    if not set(entries) >= set(tensors):
        faults.append(f"{name}: expected a JSON object with an entry for every slice")
        return None
    return entries


def _fault_of(
    name: str, tensor: Tensor, layout: Mapping[str, SliceLayout] | None, plan: Plan | None
) -> str | None:
    if tensor.dtype not in DTYPES:
        return f"{name}: expected values in float32 or bfloat16, got {tensor.dtype}"
    if layout is not None:
        place = layout[name]
        if tensor.ndim <= place.axis or tensor.shape[place.axis] != place.length:
            return (
                f"{name} is not of the shape that its layout says: {list(tensor.shape)}, where "
                f"axis {place.axis} has {place.length} indices"
            )
    if not bool(torch.isfinite(tensor).all()):
        layers = {int(step) for step in name.split(".") if step.isdecimal() and len(step) < 9}
        heads = (
            [] if plan is None else [str(head) for head in plan.operated if head.layer in layers]
        )
        return f"{name} ({', '.join(heads) or 'no head of the plan'}) holds NaN or infinity"
    return None
