"""How a run, passes or a study stand at this moment, from the files they write. Writes nothing.

Files are read while somebody else appends to them, so a line that is cut short is not there yet,
and a file that vanishes or is half written is looked at again with the next frame.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped
from pydantic import ValidationError

from headsurgeon.diagnosis.verdicts import Thresholds, verdicts_known
from headsurgeon.errors import HeadsurgeonError, InputError
from headsurgeon.planning.plan import Plan
from headsurgeon.study.decision_rule import Decision, decisions_of
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.results import (
    STUDY,
    CellResult,
    cell_file,
    cells_of,
    folder_of,
    load_results,
    rate_file,
    rates_folder,
)
from headsurgeon.study.spec import Study
from headsurgeon.training.log import read_entries
from headsurgeon.training.run_file import LOG_NAME, RUN_NAME, read_run_file
from headsurgeon.training.schedule import last_step
from headsurgeon.training.settings import TrainSettings

State = Literal["waiting", "running", "done", "failed"]
# a run whose log has not grown for so long has been stopped, or evaluates at length
QUIET = 600.0


@dataclass(frozen=True, eq=False)
class RunState:
    """One run at this moment.

    Attributes:
        name: of its folder, or of its cell.
        state: whether anything is known of it, and whether it has come to its end.
        step, steps: optimiser steps done, and of the whole run; None where that is not known.
        dev: steps and losses on dev text of all evaluations, nats per token.
        untouched: the untouched model's loss there; NaN where it was not measured.
        train: losses of the steps' own windows.
        seconds_left: at the speed it logs; NaN where that is not known.
        mass, verdicts: of every head at the last evaluation; empty where heads are not measured.
        quiet: seconds since the log last grew.
        failure: why it failed, in one line.
    """

    name: str
    state: State
    step: int = 0
    steps: int | None = None
    dev: tuple[tuple[int, float], ...] = ()
    untouched: float = math.nan
    train: tuple[float, ...] = ()
    seconds_left: float = math.nan
    mass: Float[np.ndarray, "layer head"] | None = None
    verdicts: Shaped[np.ndarray, "layer head"] | None = None
    quiet: float = math.nan
    failure: str = ""


@dataclass(frozen=True, eq=False)
class Standing:
    """All that is watched, at this moment.

    Attributes:
        name: of the study, or of the folder.
        runs: every cell of a study in the order of its arms, before them the runs of searches for
            learning rates that go on now; every pass; or the one run.
        decisions: of a study, what the cells done so far say.
        seconds_left: of all of it, a guess from what is done; NaN where nothing can be said.
    """

    name: str
    runs: tuple[RunState, ...]
    decisions: tuple[Decision, ...] = ()
    seconds_left: float = math.nan

    @property
    def ended(self) -> bool:
        """Whether nothing more is to come."""
        return all(run.state in ("done", "failed") for run in self.runs)

    @property
    def shown(self) -> RunState | None:
        """The run to look at: the running one that wrote last, else the last one that measured."""
        measured = [run for run in self.runs if run.dev]
        running = [run for run in measured if run.state == "running"]
        if running:
            return min(running, key=lambda run: run.quiet)
        return min(measured, key=lambda run: run.quiet, default=None)


class Watcher:
    """Reads the same folder again and again, and of it what has changed since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, tuple[tuple[object, ...], Any]] = {}
        self._finished: tuple[str, ...] = ()
        self._decisions: tuple[Decision, ...] = ()

    def look(self) -> Standing:
        """How it stands now.

        Raises:
            InputError: neither a run, passes nor a study lies there.
        """
        name = self.folder.resolve().name
        if (self.folder / STUDY).is_file():
            return self._study()
        if (self.folder / RUN_NAME).is_file():
            run = self._run(self.folder, name)
            return Standing(name, (run,), seconds_left=run.seconds_left)
        passes = sorted(self.folder.glob(f"pass-*/{RUN_NAME}"), key=_number)
        if passes:
            runs = tuple(self._run(path.parent, path.parent.name) for path in passes)
            return Standing(name, runs, seconds_left=runs[-1].seconds_left)
        raise InputError(
            f"{self.folder}: no run, passes or study lies there; name the --output of operate, "
            "study or demo, which may take a moment to write its first file"
        )

    def _study(self) -> Standing:
        study = Study.load(self.folder / STUDY)
        searches = [
            (arm.name, text)
            for arm in study.arms
            for text in (study.train_on if arm.rates else ())
            if not rate_file(self.folder, arm.name, text).exists()
        ]
        runs, seconds = self._at_single_rates(searches), {}
        for cell in cells_of(study):
            place = folder_of(self.folder, cell)
            path = cell_file(self.folder, cell)
            result = self._kept(path, (path,), partial(_cell, path))
            if result is not None:
                seconds[str(cell)] = result.seconds
            runs.append(self._of_cell(place, str(cell), result))
        finished = tuple(run.name for run in runs if run.state == "done")
        if finished != self._finished and UNTOUCHED in finished:
            # where a cell is being written the next frame will have it
            with suppress(HeadsurgeonError):
                self._decisions = tuple(decisions_of(load_results(self.folder)))
                self._finished = finished
        # how many rates a search will try, it does not know itself
        left = math.nan if searches else _time_left(runs, seconds)
        return Standing(study.name, tuple(runs), self._decisions, left)

    def _at_single_rates(self, searches: Sequence[tuple[str, str]]) -> list[RunState]:
        """The runs of these arms and texts at one learning rate that have not come to their end."""
        found = []
        for arm, text in searches:
            for path in sorted(rates_folder(self.folder, arm, text).glob(f"*/{RUN_NAME}")):
                run = self._run(path.parent, f"{arm}-{text}, rate {path.parent.name}")
                found += [run] if run.state == "running" else []
        return found

    def _of_cell(self, place: Path, name: str, result: CellResult | None) -> RunState:
        found = RunState(name, "waiting")
        if (place / RUN_NAME).is_file():
            found = self._run(place, name)
        elif place.is_dir():
            found = RunState(name, "running")
        if result is None:
            # training is over, but the cell is still being scored
            return replace(found, state="running") if found.state == "done" else found
        said = result.failure.splitlines()[-1:]
        return replace(found, state=result.status, failure="".join(said), seconds_left=0.0)

    def _run(self, folder: Path, name: str) -> RunState:
        files = (folder / RUN_NAME, folder / LOG_NAME)
        found: RunState = self._kept(folder, files, lambda: _run(folder, name))
        stamp = _stamp(folder / LOG_NAME)
        return replace(found, quiet=max(0.0, time.time() - stamp[0]) if stamp else math.nan)

    def _kept(self, name: Path, files: Sequence[Path], read: Callable[[], Any]) -> Any:
        """What was read before, unless one of the files has changed."""
        stamps = tuple(_stamp(path) for path in files)
        if name not in self._known or self._known[name][0] != stamps:
            self._known[name] = (stamps, read())
        return self._known[name][1]


def _stamp(path: Path) -> tuple[float, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime, found.st_size


def _number(path: Path) -> tuple[int, str]:
    digits = path.parent.name.partition("-")[2]
    return (int(digits) if digits.isdecimal() else 0, path.parent.name)


def _cell(path: Path) -> CellResult | None:
    try:
        return CellResult.load(path) if path.is_file() else None
    except InputError:
        return None


def _run(folder: Path, name: str) -> RunState:
    """A run's state; of a log that cannot be read now, that it is running."""
    try:
        content = read_run_file(folder)
        entries = read_entries(folder / LOG_NAME)
        thresholds = Plan.from_yaml(content.plan).limits
    except HeadsurgeonError:
        return RunState(name, "running")
    steps = [entry for entry in entries if entry["kind"] == "step"]
    evaluations = [entry for entry in entries if entry["kind"] == "evaluation"]
    start = entries[0] if entries and entries[0]["kind"] == "start" else None
    total = _steps(content.identity)
    mass, verdicts = _heads(evaluations, thresholds)
    return RunState(
        name=name,
        state="running" if content.result is None else "done",
        step=steps[-1]["step"] if steps else 0,
        steps=total,
        dev=tuple((entry["step"], float(entry["dev_loss"])) for entry in evaluations),
        untouched=math.nan if start is None else float(start["dev_loss"]),
        train=tuple(float(entry["loss"]) for entry in steps),
        seconds_left=0.0 if content.result is not None else _seconds(steps, total),
        mass=mass,
        verdicts=verdicts,
    )


def _steps(identity: dict[str, Any]) -> int | None:
    try:
        settings = TrainSettings.model_validate(identity["settings"])
        return last_step(settings, int(identity["train"]["windows"]))
    except (KeyError, TypeError, ValueError, ValidationError, HeadsurgeonError):
        return None


def _seconds(steps: Sequence[dict[str, Any]], total: int | None) -> float:
    """The steps that are left at the speed of the last one, which is a mean since it started."""
    speed = steps[-1].get("tokens_per_second") if steps else None
    if not speed or total is None:
        return math.nan
    per_step = steps[-1]["tokens"] / steps[-1]["step"]
    return float((total - steps[-1]["step"]) * per_step / speed)


def _heads(
    evaluations: Sequence[dict[str, Any]], thresholds: Thresholds
) -> tuple[np.ndarray | None, np.ndarray | None]:
    measured = [entry["heads"] for entry in evaluations if entry.get("heads")]
    if not measured:
        return None, None
    mass = np.array(measured[-1]["first_token_mass"], dtype=np.float64)
    entropy = np.array(measured[-1]["entropy"], dtype=np.float64)
    return mass, verdicts_known(mass, entropy, thresholds)


def _time_left(runs: Sequence[RunState], seconds: dict[str, float]) -> float:
    """Each cell to come takes as long as those of its kind took; as many at once as run now."""
    waiting = [run for run in runs if run.state == "waiting"]
    running = [run for run in runs if run.state == "running"]
    took = [seconds[run.name] for run in runs if run.name in seconds and run.steps is not None]
    took = took or list(seconds.values())
    if not took:
        return 0.0 if not waiting and not running else math.nan
    mean = sum(took) / len(took)
    left = [run.seconds_left if run.seconds_left > 0.0 else mean / 2 for run in running]
    return (sum(left) + mean * len(waiting)) / max(1, len(running))
