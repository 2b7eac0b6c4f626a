"""Safetensors files with a header and a hash of their content: whole, or refused."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from headsurgeon.errors import InputError, WriteError
from headsurgeon.files import header, header_fault, replacing

# what the libraries below raise on bytes that are not what they take them for
_DAMAGE = (
    SafetensorError,
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def write_tensors(
    path: Path | str, kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes CPU tensors atomically; header and hash join the metadata.

    Raises:
        WriteError: the file could not be written; the previous one is untouched.
    """
    complete = {name: str(value) for name, value in header(kind).items()}
    complete |= metadata
    complete["content"] = _content(tensors, complete)
    with replacing(path) as temporary:
        try:
            save_file(dict(tensors), temporary, complete)
        except SafetensorError as error:
            raise WriteError(f"cannot write {path}: {error}") from error


def read_tensors(
    path: Path | str, kind: str, error: type[InputError]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file that `write_tensors` wrote.

    Raises:
        error: no such file, another kind, cut short or altered, or of a newer schema.
    """
    path = Path(path)
    try:
        if path.is_dir():
            inside = [file.name for file in sorted(path.glob("*.safetensors"))[:3]]
            meant = f"; {path / inside[0]} may be meant" if inside else ""
            raise error(f"{path} is a folder; expected a {kind} written by headsurgeon{meant}")
        if not path.is_file():
            raise error(f"{path}: no such file; expected a {kind} written by headsurgeon")
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = _content(tensors, metadata)
    except _DAMAGE as cause:
        what = "it may be cut short: copy it again"
        if path.suffix != ".safetensors":
            what = f"expected a {kind} written by headsurgeon, such as {kind}.safetensors"
        raise error(f"{path} is not a whole safetensors file ({cause}); {what}") from cause
    schema = metadata.get("schema", "")
    # the digits are counted first, since Python refuses to read thousands of them
    is_number = schema.isascii() and schema.isdecimal() and len(schema) <= 9
    if fault := header_fault(metadata | {"schema": int(schema) if is_number else schema}, kind):
        raise error(f"{path}: {fault}")
    if metadata.get("content") != content:
        raise error(f"{path}: the content does not match its hash; copy the file again")
    return tensors, metadata


def kind_of(path: Path) -> str | None:
    """The kind that a file says it is of; None where it is no safetensors file, or says nothing."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("kind")
    except _DAMAGE:
        return None


def _content(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all values and of all metadata but itself."""
    kept = {name: text for name, text in metadata.items() if name != "content"}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        # bytes, since numpy knows no bf16; a scalar has no last axis to view them along
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
