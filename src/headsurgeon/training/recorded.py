"""What a run's folder records, read afterwards without a model: heads and losses over time."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headsurgeon.arguments import checked
from headsurgeon.errors import InputError
from headsurgeon.evaluation.loss_curve import DocumentLosses, LossCurve
from headsurgeon.evaluation.redistribution import Redistribution, redistribution_from
from headsurgeon.evaluation.sweep import Sweep
from headsurgeon.planning import Plan
from headsurgeon.training.head_log import LOGGED
from headsurgeon.training.log import DEV, probe_key, read_entries
from headsurgeon.training.run_file import LOG_NAME, RUN_NAME, altered, read_run_file

# a mass that did not change is logged as it was
_ROUNDING = 0.5 * 10.0 ** -LOGGED["first_token_mass"]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="allow")

    batch_size: int = Field(ge=1)
    accumulation: int = Field(ge=1)
    statistics_windows: int = Field(ge=0)


class _Text(BaseModel):
    model_config = ConfigDict(extra="allow")

    corpus: str
    split: str
    windows: int = Field(ge=1)
    tokens: str = ""


class _Identity(BaseModel):
    model_config = ConfigDict(extra="allow")

    train: _Text
    dev: _Text
    probes: dict[str, _Text] = {}
    settings: _Settings
    # what was trained where that is no patient: full, lora
    trains: str = ""


class _Recorded(NamedTuple):
    name: str
    model: str
    plan: str
    identity: _Identity
    start: Mapping[str, Any] | None
    evaluations: Sequence[Mapping[str, Any]]

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(entry["step"] for entry in self.evaluations)

    @property
    def steps_per_epoch(self) -> float:
        settings = self.identity.settings
        return self.identity.train.windows / (settings.batch_size * settings.accumulation)


@checked
def redistribution(run: Path | str) -> Redistribution:
    """Every head's first-token mass along a run, finished or not, against the untouched model.

    Args:
        run: the folder of a run, or of a cell of a study.

    Raises:
        InputError: no run lies there, or its log says nothing of heads; says why.
        OutputError: its log is damaged.
    """
    recorded = _read(Path(run))
    heads = None if recorded.start is None else recorded.start["heads"]
    if recorded.start is None:
        raise InputError(
            f"{run}: its log is of version 1, which says nothing of single heads; run it again"
        )
    measured = [entry for entry in recorded.evaluations if entry["heads"] is not None]
    if heads is None or not measured:
        raise InputError(
            f"{run}: heads were not measured while it ran (statistics_windows was 0); measure its "
            "snapshots, or run it again with more"
        )
    plan, identity = Plan.from_yaml(recorded.plan), recorded.identity
    return redistribution_from(
        _mass(heads),
        np.stack([_mass(entry["heads"]) for entry in measured]),
        [entry["step"] for entry in measured],
        plan.operated,
        plan.watched,
        run=recorded.name,
        model=recorded.model,
        epochs=[entry["step"] / recorded.steps_per_epoch for entry in measured],
        confined=not identity.trains,
        rounding=_ROUNDING,
        measured_on=_hash(identity.dev, identity.settings.statistics_windows),
        sick_mass=plan.limits.sink,
    )


@checked
def redistribution_if_measured(run: Path | str) -> Redistribution | None:
    """As `redistribution`; None of a folder whose log says nothing of heads, or that has no log.

    Raises:
        OutputError: its log is damaged.
    """
    entries = read_entries(Path(run) / LOG_NAME)
    if not entries or entries[0]["kind"] != "start" or entries[0]["heads"] is None:
        return None
    evaluations = [entry for entry in entries if entry["kind"] == "evaluation"]
    measured = any(entry["heads"] is not None for entry in evaluations)
    return redistribution(run) if measured else None


@checked
def sweep(run: Path | str) -> Sweep:
    """The losses along a run, finished or not, on its dev text and its probes.

    Args:
        run: the folder of a run, or of a cell of a study.

    Raises:
        InputError: no run lies there.
        OutputError: its log is damaged.
    """
    recorded = _read(Path(run))
    identity = recorded.identity
    return Sweep(
        run=recorded.name,
        model=recorded.model,
        steps=recorded.steps,
        steps_per_epoch=recorded.steps_per_epoch,
        dev=_curve(recorded, DEV, DEV, identity.dev),
        probes=tuple(
            _curve(recorded, name, probe_key(name), text)
            for name, text in sorted(identity.probes.items())
        ),
    )


def _curve(recorded: _Recorded, name: str, key: str, text: _Text) -> LossCurve:
    def loss(entry: Mapping[str, Any]) -> float:
        return float(entry["dev_loss"] if key == DEV else entry["probes"][name])

    start = recorded.start
    return LossCurve(
        name=name,
        corpus=text.corpus,
        split=text.split,
        untouched=float("nan") if start is None else loss(start),
        loss=np.array([loss(entry) for entry in recorded.evaluations]),
        documents=_documents(recorded, key),
    )


def _documents(recorded: _Recorded, key: str) -> DocumentLosses | None:
    start = recorded.start or {}
    lines = [line.get("document_losses", {}) for line in (start, *recorded.evaluations)]
    # a run that was begun by an earlier version knows the documents of its later steps alone
    if not all(key in line for line in lines):
        return None
    untouched, *rest = (np.array(line[key], dtype=np.float64) for line in lines)
    tokens = np.array(start["document_tokens"][key], dtype=np.float64)
    return DocumentLosses(tokens=tokens, loss=np.stack(rest), untouched=untouched)


def _read(folder: Path) -> _Recorded:
    if not (folder / RUN_NAME).is_file():
        raise InputError(
            f"{folder}: no run lies there (no {RUN_NAME} in it); name the folder that `operate` "
            "wrote, or a study's cells/ARM-TEXT-SEED"
        )
    content = read_run_file(folder)
    try:
        identity = _Identity.model_validate(content.identity)
    except ValidationError as error:
        raise altered(folder / RUN_NAME, error, "identity") from error
    entries = read_entries(folder / LOG_NAME)
    evaluations = [entry for entry in entries if entry["kind"] == "evaluation"]
    if not evaluations:
        raise InputError(f"{folder}: the run has not been evaluated yet; look again later")
    start = entries[0] if entries[0]["kind"] == "start" else None
    return _Recorded(
        folder.resolve().name, content.model, content.plan, identity, start, evaluations
    )


def _mass(heads: Mapping[str, Any]) -> np.ndarray:
    return np.array(heads["first_token_mass"], dtype=np.float64)


def _hash(text: _Text, windows: int) -> str:
    content = json.dumps([text.corpus, text.split, text.tokens, windows])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
