"""The log of a run: one JSON object a line, for steps and for evaluations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headsurgeon import files

LOG_NAME = "log.jsonl"


@dataclass(frozen=True)
class Run:
    """A training run that used up its budget, and where its files are.

    Attributes:
        folder: the run's folder: `run.json`, `log.jsonl`, `checkpoint/`, `patch.safetensors`.
        steps: optimiser steps of the whole run.
        tokens: tokens read in them.
        best_step: the step whose slices the patient and the patch hold.
        best_dev_loss: loss on dev text at that step, nats per token.
        log: path of the log.
        patch: path of the patch.
    """

    folder: Path
    steps: int
    tokens: int
    best_step: int
    best_dev_loss: float
    log: Path
    patch: Path


def read_entries(path: Path | str) -> list[dict[str, Any]]:
    """All whole lines of a log; a line cut short by a kill is left out."""
    path = Path(path)
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.endswith("}"):
            entries.append(json.loads(line))
    return entries


def read_log(run: Run) -> list[tuple[int, float]]:
    """Tokens trained and loss on dev text (nats per token) at every evaluation of a run."""
    return [
        (int(entry["tokens"]), float(entry["dev_loss"]))
        for entry in read_entries(run.log)
        if entry["kind"] == "evaluation"
    ]


def cut_back(path: Path | str, step: int, evaluated: int) -> None:
    """Drops what a checkpoint does not know of, since it is going to be computed again."""
    limits: Mapping[str, int] = {"step": step, "evaluation": evaluated}
    kept = [entry for entry in read_entries(path) if entry["step"] <= limits[entry["kind"]]]
    files.write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
