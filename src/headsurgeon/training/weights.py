"""What a run starts from besides what it trains: every weight, the configuration, the modules."""

import hashlib
import json
import platform
import re
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from headsurgeon.operation.learner import Learner

# what a configuration says about itself and not about the model
_ASIDE = {"_name_or_path", "transformers_version", "architectures", "id2label", "label2id"}


def weight_hashes(learner: Learner) -> dict[str, str]:
    """SHA-256 of every stored tensor of the model as it was before, by name.

    The bytes are hashed as they are held, so another precision is another model.
    """
    hashes: dict[str, str] = {}
    seen: dict[tuple[object, ...], str] = {}
    # what else comes is a copy, whose place the next one may take
    held = {tensor.data_ptr() for tensor in learner.model.state_dict().values()}
    for name, tensor in learner.stock_state():
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        # tied weights are read once
        hashes[name] = seen[place] if place in seen else _of_tensor(tensor)
        if tensor.data_ptr() in held:
            seen[place] = hashes[name]
    return hashes


def configuration(learner: Learner) -> dict[str, str]:
    """The model's configuration, each field as JSON, and a hash of its modules as they print."""
    fields = json.loads(learner.model.config.to_json_string(use_diff=False))
    described = {
        name: json.dumps(value, sort_keys=True)
        for name, value in fields.items()
        if name not in _ASIDE
    }
    modules = re.sub(r"0x[0-9a-f]+", "", repr(learner.model))
    return described | {"modules": hashlib.sha256(modules.encode()).hexdigest()}


def environment(learner: Learner) -> dict[str, str]:
    """What a run is computed with; other versions may round differently."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "device": learner.model.device.type,
    }


def differing(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Which tensors differ, in words; the first three by name."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _of_tensor(tensor: Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
