"""The log of a run: one JSON object a line, for its start, for steps and for evaluations.

The first line is of kind `start`; it says the version of the log and what the evaluation finds on
the untouched model, from which all drift is counted. Logs without it are of version 1 and say
nothing of single heads; those of version 2 say nothing of single documents.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from headsurgeon import files
from headsurgeon.errors import OutputError, WriteError
from headsurgeon.training.run_result import Run

VERSION = 3
# what the dev text is called among those whose documents are listed
DEV = "dev"

Count = Annotated[int, Field(ge=0, le=2**62, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]


# by text, a number for each of its documents
Documents = dict[str, list[Number]]
Heads = dict[str, list[list[Number | None]]]


class _Start(BaseModel):
    """What the first line must hold."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["start"]
    version: Annotated[int, Field(ge=2, le=VERSION, strict=True)]
    against: Literal["untouched"]
    dev_loss: Number
    heads: Heads | None
    probes: dict[str, Number]
    document_tokens: dict[str, list[Count]] = {}
    document_losses: Documents = {}


class _Step(BaseModel):
    """What a line about a step must hold; from version 2 on the terms besides the loss on text."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["step"]
    step: Count
    tokens: Count
    loss: Number
    learning_rate: Number
    gradient_norm: Number
    tokens_per_second: Number | None = None
    terms: dict[str, Number] = {}
    anchor_tokens: Count = 0


class _Zone(BaseModel):
    """Drift of the heads of one zone, see `head_log.ZoneDrift`."""

    model_config = ConfigDict(extra="forbid")

    heads: Count
    could_drift: Count
    drifted: Count
    mean: Number | None
    largest: Number | None


class _Evaluation(BaseModel):
    """What a line about an evaluation must hold.

    From version 2 on heads, drift and probes, from version 3 on the losses of documents.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["evaluation"]
    step: Count
    tokens: Count
    dev_loss: Number
    healthy: Count | None
    healthy_operated: Count | None
    first_token_mass: Number | None
    heads: Heads | None = None
    drift: dict[Literal["operated", "watched", "outside"], _Zone] | None = None
    probes: dict[str, Number] = {}
    document_losses: Documents = {}


_ENTRY: TypeAdapter[_Start | _Step | _Evaluation] = TypeAdapter(
    Annotated[_Start | _Step | _Evaluation, Field(discriminator="kind")]
)


def read_entries(path: Path | str) -> list[dict[str, Any]]:
    """All whole lines of a log; a last line cut short by a kill is left out.

    Raises:
        OutputError: it cannot be read, or a line is not what a run writes; names the line.
    """
    path = Path(path)
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}") from error
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        unfinished = number == len(lines)
        if unfinished and not line.endswith(b"}"):
            continue
        try:
            entry = files.parse_json(line.decode("utf-8"))
            _ENTRY.validate_python(entry)
        except ValueError as error:
            if unfinished and not isinstance(error, ValidationError):
                # cut short behind an inner brace
                continue
            raise OutputError(
                f"{path}, line {number}: {_reason(error)}; the log was altered since the run wrote "
                "it: restore it, or start over in another folder"
            ) from error
        entries.append(entry)
    _check_order(entries, path)
    return entries


def read_log(run: Run | Path) -> list[tuple[int, float]]:
    """Tokens trained and loss on dev text (nats per token) at every evaluation of a run, or a log.

    Raises:
        OutputError: as for `read_entries`, or there is no evaluation in it.
    """
    log = run if isinstance(run, Path) else run.log
    points = [
        (int(entry["tokens"]), float(entry["dev_loss"]))
        for entry in read_entries(log)
        if entry["kind"] == "evaluation"
    ]
    if not points:
        raise OutputError(f"{log} holds no evaluation; it was removed or cut since the run")
    return points


def dev_loss_at(path: Path | str, step: int) -> float:
    """Loss on dev text at a step that was evaluated, nats per token.

    Raises:
        OutputError: as for `read_entries`, or that evaluation is gone.
    """
    for entry in read_entries(path):
        if entry["kind"] == "evaluation" and entry["step"] == step:
            return float(entry["dev_loss"])
    raise OutputError(f"{path} holds no evaluation at step {step}; it was cut since the run")


def probe_key(name: str) -> str:
    """What a probe is called among the texts whose documents are listed."""
    return f"probe:{name}"


def start_entry(
    untouched: Mapping[str, Any], document_tokens: Mapping[str, list[int]]
) -> dict[str, Any]:
    """The first line of a log, of what an evaluation found on the untouched model.

    Args:
        untouched: what it found, by name.
        document_tokens: of each text, the predicted tokens of every document.
    """
    names = ("dev_loss", "heads", "probes", "document_losses")
    measured = {name: untouched[name] for name in names}
    tokens = {"document_tokens": dict(document_tokens)}
    return {"kind": "start", "version": VERSION, "against": "untouched", **measured, **tokens}


def cut_back(path: Path | str, step: int, evaluated: int) -> int:
    """Drops what a checkpoint does not know of, since it is going to be computed again.

    Returns:
        The number of lines left.

    Raises:
        OutputError: as for `read_entries`, or the log ends before the checkpoint.
        WriteError: it cannot be written.
    """
    limits: Mapping[str, int] = {"step": step, "evaluation": evaluated, "start": 0}
    kept = [e for e in read_entries(path) if e.get("step", 0) <= limits[e["kind"]]]
    steps = sum(entry["kind"] == "step" for entry in kept)
    last = max((entry["step"] for entry in kept if entry["kind"] == "evaluation"), default=-1)
    if (steps, last) != (step, evaluated):
        raise OutputError(
            f"{path} holds {steps} steps and an evaluation at {last}, the checkpoint beside it "
            f"{step} and {evaluated}: the log was removed or cut; restore it, or start over in "
            "another folder"
        )
    files.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
    return len(kept)


def keep(path: Path) -> None:
    """Has the log on the disk before a checkpoint that relies on it.

    Raises:
        WriteError: the operating system refused.
    """
    if not path.exists():
        return
    try:
        with path.open("rb") as log:
            os.fsync(log.fileno())
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _check_order(entries: list[dict[str, Any]], path: Path) -> None:
    """The start comes first if at all; steps are 1, 2, 3, …; evaluations rise."""
    step, evaluated = 0, -1
    for number, entry in enumerate(entries, 1):
        if entry["kind"] == "start" and number == 1:
            continue
        this_step = entry.get("step", 0)
        expected = this_step == step + 1 if entry["kind"] == "step" else this_step > evaluated
        if not expected:
            raise OutputError(
                f"{path}, line {number}: {entry['kind']} {this_step} after step {step}, evaluation "
                f"{evaluated}; lines are missing or twice: restore the log, or start over in "
                "another folder"
            )
        if entry["kind"] == "step":
            step = this_step
        else:
            evaluated = this_step


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in fault["loc"])
        if fault["loc"][-1:] == ("version",) and fault["type"] == "less_than_equal":
            return f"version: newer than {VERSION}, which this headsurgeon reads; upgrade it"
        return f"{name}: {fault['msg']}" if name else str(fault["msg"])
    return f"no JSON object ({error})"
