"""Where a model in memory came from, and what its checkpoint stores for one of its parameters."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor, nn

from headsurgeon.errors import HeadsurgeonError
from headsurgeon.models.address import Address
from headsurgeon.models.catalogue import PREFIX, ZOO
from headsurgeon.models.stored import StoredTensor, stored_tensors

_CONFIG = "config.json"


def checkpoint_folder(model: nn.Module) -> Path | None:
    """The folder a model was read from: its own, a zoo model's, or the Hub's in the local cache.

    None for a model built in memory or read from a GGUF file. Nothing is fetched.
    """
    name = getattr(model, "name_or_path", None) or ""
    if name.startswith(PREFIX):
        known = ZOO.get(name.removeprefix(PREFIX))
        return known.folder if known is not None and known.folder.is_dir() else None
    try:
        folder = Path(os.path.expanduser(name))
        if name and (folder / _CONFIG).is_file():
            return folder
    except (OSError, ValueError, RuntimeError):
        return None
    commit = getattr(getattr(model, "config", None), "_commit_hash", None)
    if not isinstance(commit, str):
        return None
    address = Address.parse(name)
    config = _CONFIG if address.subfolder is None else f"{address.subfolder}/{_CONFIG}"
    cached = try_to_load_from_cache(address.repository, config, revision=commit)
    return Path(cached).parent if isinstance(cached, str) else None


def stored_for(model: nn.Module) -> dict[str, StoredTensor]:
    """The tensors of the checkpoint a model was read from; empty where there is none any more."""
    folder = checkpoint_folder(model)
    if folder is None:
        return {}
    try:
        return stored_tensors(str(folder))
    except HeadsurgeonError:
        return {}


def find_stored(
    stored: Mapping[str, StoredTensor], name: str, parameter: Tensor
) -> StoredTensor | None:
    """What the checkpoint calls a parameter of the model, where it stores it in the same shape.

    Checkpoints are saved with and without the prefix of the model's body.
    """
    exact = stored.get(name)
    candidates = [
        tensor
        for key, tensor in stored.items()
        if key.endswith(f".{name}") or name.endswith(f".{key}")
    ]
    if exact is not None:
        candidates = [exact]
    # of several, none is certain
    if len(candidates) != 1 or candidates[0].shape != tuple(parameter.shape):
        return None
    return candidates[0]


def as_stored(stored: Mapping[str, StoredTensor], name: str, parameter: Tensor) -> Tensor:
    """A parameter in the precision its checkpoint stores it in; itself where it has been changed.

    A parameter counts as the checkpoint's if it is the stored tensor, rounded to its own precision.
    """
    tensor = find_stored(stored, name, parameter)
    if tensor is None:
        return parameter
    value = tensor.read()
    if not value.is_floating_point() or value.element_size() < 2 or value.dtype == parameter.dtype:
        return parameter
    same = torch.equal(value.to(parameter.dtype), parameter.detach().to("cpu"))
    return value if same else parameter
