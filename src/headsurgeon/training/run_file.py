"""`run.json`: what a run is, and its result; it is read without a model, and without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from headsurgeon.data.spec import without_folders
from headsurgeon.errors import OutputError
from headsurgeon.files import read_json
from headsurgeon.training.repeating import operate_options
from headsurgeon.training.settings import TrainSettings

RUN_NAME = "run.json"
LOG_NAME = "log.jsonl"
KIND = "run"


class _Windows(BaseModel):
    """What an identity says of a text, as far as it is read again."""

    model_config = ConfigDict(extra="allow", strict=True)

    corpus: Any
    split: Any
    windows: int


class _Identity(BaseModel):
    """What is read of an identity by others than a run that resumes, which compares all of it."""

    model_config = ConfigDict(extra="allow", strict=True)

    train: _Windows
    dev: _Windows
    settings: dict[str, Any]


class LoadedWith(BaseModel):
    """Which tokenizer and trust were given to `headsurgeon.load`."""

    model_config = ConfigDict(extra="allow", strict=True)

    tokenizer: str | None = None
    trust_remote_code: bool = False


class RunFile(BaseModel):
    """What `run.json` must hold; whatever else is there is kept.

    Attributes:
        model: id of the model.
        loaded_with: which tokenizer and trust were given to `headsurgeon.load`; None in a run of a
            version that did not write it down.
        identity: all that decides what comes out of the run.
        environment: versions and device of every session that worked on it.
        plan: YAML of the plan.
        result: what came out; None until it has finished.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    model: str
    loaded_with: LoadedWith | None = None
    identity: dict[str, Any]
    environment: list[dict[str, str]] = []
    plan: str
    result: dict[str, Any] | None = None

    @field_validator("identity")
    @classmethod
    def _readable(cls, identity: dict[str, Any]) -> dict[str, Any]:
        _Identity.model_validate(identity)
        return identity


def read_run_file(folder: Path) -> RunFile:
    """What the folder of a run says of it.

    Raises:
        InputError: there is no `run.json`, or it is of another kind or a newer headsurgeon.
        OutputError: it was altered; names the place.
    """
    path = folder / RUN_NAME
    content = read_json(path, KIND)
    try:
        return RunFile.model_validate(content)
    except ValidationError as error:
        raise altered(path, error) from error


def runs_beside(patches: Sequence[Path]) -> list[dict[str, Any]]:
    """What the run of each patch says of itself, where one lies beside it; nothing is guessed.

    Each has, beside what its `run.json` holds, `options`: those of `operate_options`, settings that
    are the defaults left out. Folders of this machine are left out of the names of its texts.

    Raises:
        InputError: a `run.json` that cannot be read.
        OutputError: one that was altered.
    """
    usual = {name: field.default for name, field in TrainSettings.model_fields.items()}
    runs = []
    for folder in (patch.parent for patch in patches):
        if (folder / RUN_NAME).is_file():
            run = read_run_file(folder).model_dump()
            identity = _elsewhere(run["identity"])
            settings = identity["settings"]
            changed = {k: v for k, v in settings.items() if v not in (usual.get(k), None)}
            options = operate_options(identity, changed)
            runs.append({**run, "identity": identity, "options": options})
    return runs


def _elsewhere(entry: Any) -> Any:
    """An identity in which no corpus names a folder of this machine."""
    if not isinstance(entry, dict):
        return entry
    return {
        name: without_folders(value)
        if name == "corpus" and isinstance(value, str)
        else _elsewhere(value)
        for name, value in entry.items()
    }


def altered(path: Path, error: ValidationError, within: str = "") -> OutputError:
    """The error for a `run.json` that holds what no run writes, in the entry `within`."""
    fault = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(filter(None, (within, *map(str, fault["loc"]))))
    return OutputError(
        f"{path}: {place}: {fault['msg']}; the file was altered since the run wrote it: "
        "restore it, or start over in another folder"
    )
