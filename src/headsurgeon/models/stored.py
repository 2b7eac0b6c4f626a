"""What a checkpoint holds, read from the headers of its safetensors files: no weight is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from headsurgeon.errors import ModelError
from headsurgeon.models.cached import lacking_weights
from headsurgeon.models.reading import not_cached


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint.

    Attributes:
        name: as the file calls it, which need not be what the model calls it.
        dtype: as safetensors spells it, such as `F32`, `BF16`, `F8_E4M3`.
        shape: its sizes.
        file: the safetensors file it lies in.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path

    def read(self) -> Tensor:
        """The tensor itself, on the CPU, in the precision it is stored in."""
        with safe_open(self.file, framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(self.name)
        return tensor


def stored_tensors(source: str, revision: str | None = None) -> dict[str, StoredTensor]:
    """Every tensor in the safetensors files that `from_pretrained` reads, by its stored name.

    Args:
        source: a local folder, or a Hub id whose files are in the local cache by now.
        revision: branch, tag or commit on the Hub.

    Raises:
        ModelError: there is no safetensors file, one is damaged, or two hold the same tensor;
            names the file.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(source, revision):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    if name in tensors:
                        raise ModelError(
                            f"{source}: {name} is stored in two files ({file.name} is the second), "
                            "and only one of them counts; remove the other"
                        )
                    header = opened.get_slice(name)
                    shape = tuple(header.get_shape())
                    tensors[name] = StoredTensor(name, header.get_dtype(), shape, file)
        except (SafetensorError, OSError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{source}: cannot be loaded: {file.name} is damaged or incomplete: {reason}"
            ) from error
    return tensors


def has_weight_files(source: str, revision: str | None = None) -> bool:
    """Whether there are safetensors files that `from_pretrained` would read."""
    names = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)
    return any(beside(source, name, revision) is not None for name in names)


def weight_files(source: str, revision: str | None = None) -> list[Path]:
    """The safetensors files that `from_pretrained` reads, in the order of their names.

    Raises:
        ModelError: there is none, or the index that lists them is damaged.
        NetworkError: one of a Hub id is not in the local cache, and the Hub cannot be reached.
    """
    single = beside(source, SAFE_WEIGHTS_NAME, revision)
    if single is not None:
        return [single]
    index = beside(source, SAFE_WEIGHTS_INDEX_NAME, revision)
    if index is None:
        raise ModelError(
            f"{source}: found neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}; weights "
            "are read from safetensors alone, so convert the checkpoint first"
        )
    shards = json_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"{index}: expected a weight_map from tensors to files")
    files = {name: beside(source, name, revision) for name in sorted(set(shards.values()))}
    missing = [name for name, file in files.items() if file is None or Path(name).name != name]
    if missing and not Path(source).is_dir() and (names := lacking_weights(source, revision)):
        raise not_cached(source, names)
    if missing:
        raise ModelError(f"{index} names {missing[0]}, which is not beside it; copy it again")
    return [file for file in files.values() if file is not None]


def beside(source: str, name: str, revision: str | None = None) -> Path | None:
    """The file of that name in a checkpoint; None where there is none (or no network)."""
    folder = Path(source)
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    path = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if path is None else Path(path)


def json_object(path: Path) -> Mapping[str, object]:
    """A JSON file of a checkpoint that has to hold an object.

    Raises:
        ModelError: it cannot be read, or holds something else; names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{path} cannot be read as JSON: {reason}; copy the file again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
