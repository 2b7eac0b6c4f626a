"""The folder of a run: `run.json` says what the run is; only the same run may resume in it."""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from headsurgeon import files
from headsurgeon.attention.choice import choose_attention
from headsurgeon.data import Texts, Windows, equal_parts
from headsurgeon.errors import HeadsurgeonWarning, OutputError
from headsurgeon.folders import manifest_of
from headsurgeon.models.forward import model_id
from headsurgeon.models.loaded_with import loaded_with
from headsurgeon.operation.learner import Learner
from headsurgeon.planning import Plan
from headsurgeon.records import snake_case
from headsurgeon.training.contexts import computing
from headsurgeon.training.run_file import KIND, RUN_NAME, RunFile, read_run_file
from headsurgeon.training.settings import TrainSettings
from headsurgeon.training.weights import configuration, differing, environment, weight_hashes

CHECKPOINTS = "checkpoint"
_HASH = "patch_sha256"


def identity(
    learner: Learner,
    train: Windows,
    dev: Windows,
    settings: TrainSettings,
    probes: Mapping[str, Windows | Texts],
    anchor: Windows | None,
) -> dict[str, Any]:
    """All that decides what comes out of a run; two runs that agree here are the same run."""
    with computing(learner.model, settings):
        ran = choose_attention(learner.model, settings.attention, training=True)
    return {
        **learner.identity(),
        "dtype": str(learner.model.dtype).removeprefix("torch."),
        "attention": ran,
        "train": describe(train),
        "dev": describe(dev),
        "anchor": None if anchor is None else describe(anchor),
        "probes": {name: describe(windows) for name, windows in sorted(probes.items())},
        "settings": settings.model_dump(mode="json"),
        "weights": weight_hashes(learner),
        "config": configuration(learner),
    }


def open_folder(folder: Path, this_run: Mapping[str, Any], learner: Learner) -> None:
    """Starts a run in an empty folder, or accepts the folder of the same run; call it `locked`.

    Other versions of the libraries, or another kind of device, are no other run: they are written
    down and warned about, since they may round differently.

    Raises:
        OutputError: the folder holds a run that differs, a damaged `run.json`, or a result that was
            changed after the run had finished; names what.
        WriteError: it cannot be written.
    """
    path = folder / RUN_NAME
    here = files.header(KIND) | environment(learner)
    here = {name: str(value) for name, value in here.items() if name not in ("kind", "schema")}
    if path.exists():
        earlier = read_run_file(folder)
        _check_same(earlier.identity, this_run, folder)
        saved = folder / learner.file_name
        if saved.exists() and result_as_written(folder, saved.name) is False:
            raise OutputError(
                f"{saved} is not the one that this run wrote when it finished; move "
                "it away to have the run's own written again, or choose another folder"
            )
        changes: dict[str, Any] = {}
        if earlier.loaded_with is None:
            # a run of a version that did not write it down
            changes["loaded_with"] = loaded_with(learner.model)
        if here not in earlier.environment:
            _warn(earlier.environment, here, folder)
            changes["environment"] = [*earlier.environment, here]
        if changes:
            _write(folder, earlier, **changes)
        return
    content = {
        **files.header(KIND),
        "model": model_id(learner.model),
        "loaded_with": loaded_with(learner.model),
        "environment": [here],
        "identity": this_run,
        "slice_parameters": sum(tensor.numel() for tensor in learner.trainable().values()),
        "frozen_key_values": [str(head) for head in learner.frozen_key_values],
        "slopes": list(learner.layout.slopes),
        "plan": learner.plan.to_yaml(),
        "result": None,
    }
    files.write_json(path, content)


def write_result(folder: Path, result: Mapping[str, Any], saved: str) -> None:
    """Enters the outcome of a finished run into `run.json`, with the hash of the file `saved`."""
    written = {**result, "patch": saved, _HASH: manifest_of(folder, [saved]).get(saved)}
    _write(folder, read_run_file(folder), result=written)


def result_as_written(folder: Path, saved: str) -> bool | None:
    """Whether the file is the one the finished run wrote; None while there is no telling."""
    said = (read_run_file(folder).result or {}).get(_HASH)
    return None if said is None else said == manifest_of(folder, [saved]).get(saved)


def _write(folder: Path, content: RunFile, **changes: Any) -> None:
    files.write_json(
        folder / RUN_NAME, {**(content.model_extra or {}), **content.model_dump(), **changes}
    )


def _warn(before: list[dict[str, str]], now: dict[str, str], folder: Path) -> None:
    last = before[-1] if before else {}
    changes = [
        f"{name} {last.get(name, 'unknown')} → {value}"
        for name, value in now.items()
        if last.get(name) != value
    ]
    warnings.warn(
        f"{folder} is resumed under {', '.join(changes)}: the end may differ in the last bits from "
        "that of an uninterrupted run",
        category=HeadsurgeonWarning,
        stacklevel=2,
    )


def describe(windows: Windows | Texts) -> dict[str, Any]:
    """What tells texts from others: where they are from, and a hash of their tokens."""
    parts = equal_parts(windows)
    tokens = b"".join(part.tokens.numpy().tobytes() for part in parts)
    return {
        "corpus": windows.corpus,
        "split": parts[0].split,
        "first_token": windows.first_token,
        "windows": len(windows),
        "corpus_hash": windows.corpus_hash,
        "tokens": hashlib.sha256(tokens).hexdigest(),
    }


def _check_same(earlier: Mapping[str, Any], this_run: Mapping[str, Any], folder: Path) -> None:
    # hundreds of hashes are told in one line
    before = _comparable(_completed(earlier) | {"weights": None})
    now = _comparable({**this_run, "weights": None})
    faults = differences(before, now)
    weights = earlier.get("weights")
    if weights != this_run["weights"]:
        known = weights if isinstance(weights, dict) else {}
        faults.append(f"weights: other values of {differing(known, this_run['weights'])}")
    if faults:
        raise OutputError(
            f"{folder} holds another run; choose another folder, or the same settings and model:"
            "\n  " + "\n  ".join(faults)
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Where two identities, without nesting, differ: one line for each entry."""
    return [
        f"{name}: the run there has {_shown(before, name)}, this one {_shown(now, name)}"
        for name in sorted(set(before) | set(now))
        if before.get(name) != now.get(name)
    ]


def planned_in(folder: Path) -> Plan | None:
    """The plan of the run that was begun in a folder; None where none was.

    Raises:
        OutputError, PlanError: its `run.json` is damaged.
    """
    path = folder / RUN_NAME
    return Plan.from_yaml(read_run_file(folder).plan, str(path)) if path.exists() else None


def _completed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity written before a setting existed says what the setting was: its default."""
    defaults = {name: field.default for name, field in TrainSettings.model_fields.items()}
    settings = identity.get("settings")
    known = settings if isinstance(settings, dict) else {}
    return {**identity, "settings": to_jsonable_python(defaults) | known}


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity without nesting, and with fast attention as one thing.

    Tiles or kernel follow from device and precision, which have entries of their own; earlier
    versions wrote `fused` for both, and for what was asked. They also had hyphens in the names of
    starts.
    """
    entries = flat(identity)
    for name in ("init", "output_start"):
        if isinstance(entries.get(name), str):
            entries[name] = snake_case(entries[name])
    for name in ("attention", "settings.attention"):
        if entries.get(name) in ("tiles", "kernel", "fused"):
            entries[name] = "fast"
    return entries


def _shown(content: Mapping[str, Any], name: str) -> str:
    return files.shorten(repr(content.get(name)), 200)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Without nesting: `settings.length` for what stands in `settings`."""
    entries: dict[str, Any] = {}
    for name, value in content.items():
        nested = isinstance(value, Mapping)
        entries |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return entries
