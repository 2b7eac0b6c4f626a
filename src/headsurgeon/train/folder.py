"""The folder of a run: `run.json` says what the run is; only the same run may go on in it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headsurgeon import files
from headsurgeon.attention.choice import choose_attention
from headsurgeon.data import Windows
from headsurgeon.errors import OutputError
from headsurgeon.folders import claim_folder
from headsurgeon.models.forward import model_id
from headsurgeon.operate import Patient
from headsurgeon.train.settings import TrainSettings

RUN_NAME = "run.json"
CHECKPOINTS = "checkpoint"
PATCH_NAME = "patch.safetensors"
_KIND = "run"


def identity(
    patient: Patient, train: Windows, dev: Windows, settings: TrainSettings
) -> dict[str, Any]:
    """All that decides what comes out of a run; two runs that agree here are the same run."""
    return {
        "fingerprint": patient.base_fingerprint,
        "heads": [str(head) for head in patient.heads],
        "init": patient.init,
        "output_start": patient.output_start,
        "init_seed": patient.seed,
        "dtype": str(patient.model.dtype).removeprefix("torch."),
        "attention": choose_attention(patient.model, settings.attention, training=True),
        "train": _describe(train),
        "dev": _describe(dev),
        "settings": settings.model_dump(),
    }


def open_folder(folder: Path | str, wanted: Mapping[str, Any], patient: Patient) -> Path:
    """Starts a run in an empty folder, or accepts the folder of the same run.

    Raises:
        OutputError: the folder holds something else, or a run that differs; names what differs.
        WriteError: it cannot be written.
    """
    folder = claim_folder(folder, RUN_NAME)
    path = folder / RUN_NAME
    if path.exists():
        found = files.read_json(path, _KIND)["identity"]
        _check_same(found, wanted, folder)
        return folder
    content = {
        **files.header(_KIND),
        "model": model_id(patient.model),
        "identity": wanted,
        "slice_parameters": sum(slice_.numel() for slice_ in patient.slices()),
        "frozen_key_values": [str(head) for head in patient.frozen_key_values],
        "plan": patient.plan.to_yaml(),
        "result": None,
    }
    files.write_json(path, content)
    return folder


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Enters the outcome of a finished run into `run.json`."""
    path = folder / RUN_NAME
    files.write_json(path, {**files.read_json(path, _KIND), "result": dict(result)})


def _describe(windows: Windows) -> dict[str, Any]:
    return {
        "corpus": windows.corpus,
        "split": windows.split,
        "first_token": windows.first_token,
        "windows": len(windows),
        "corpus_hash": windows.corpus_hash,
        "tokens": hashlib.sha256(windows.tokens.numpy().tobytes()).hexdigest(),
    }


def _check_same(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    before, now = _flat(found), _flat(wanted)
    differing = [
        f"{name}: the run there has {before.get(name)!r}, this one {now.get(name)!r}"
        for name in sorted(set(before) | set(now))
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise OutputError(
            f"{folder} holds another run; choose another folder, or the same settings:\n  "
            + "\n  ".join(differing)
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat
