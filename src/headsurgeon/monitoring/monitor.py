"""A monitor of anyone's training run: every so many steps, all heads on a few windows."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data import Windows, as_windows
from headsurgeon.diagnosis.crossings import CAME_BACK, COLLAPSED, Crossing
from headsurgeon.diagnosis.diagnosis import diagnose
from headsurgeon.diagnosis.series import (
    HeadSeries,
    SeriesPoint,
    SeriesSource,
    point_entry,
)
from headsurgeon.diagnosis.verdicts import PAPER, Thresholds
from headsurgeon.errors import HeadsurgeonError, HeadsurgeonWarning, OutputError, SettingsError
from headsurgeon.files import append_line
from headsurgeon.measurement.measuring import measure
from headsurgeon.models.forward import model_id
from headsurgeon.monitoring.untouched_run import untouched_run, whole_model

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

# enough for bounds of two digits, in a few milliseconds
_DRAWS = 2000


class HeadMonitor(TrainerCallback):
    """Measures every head of a model while it is trained, and says when heads collapse.

    With the Trainer of `transformers`:

        monitor = hs.HeadMonitor(windows, every=100, output="heads.jsonl").attach(trainer)
        trainer.train()

    In a loop of your own, after a step:

        monitor.measure(model, step)

    The run is not changed: losses and weights are bit for bit those of the same run without. Where
    several processes train one model, the first alone measures. A head *collapses* when the 95 %
    interval of its mean mass over documents lies wholly above `thresholds.sink` at `patience`
    measurements in a row, and comes back when it lies wholly at or below as often; both are warned
    of, once for each head. What is measured are the weights as the run holds them (fp32 masters
    under mixed precision, unless the caller is inside of autocast).

    Attributes:
        every: steps between two measurements of the Trainer's; the start and the end are measured
            too.
    """

    def __init__(
        self,
        windows: Windows | Tensor,
        every: int = 100,
        output: str | os.PathLike[str] | None = None,
        *,
        thresholds: Thresholds = PAPER,
        patience: int = 3,
        batch_size: int | None = None,
        attention: AttentionChoice = "auto",
    ) -> None:
        """Prepares a monitor; nothing is measured yet.

        Args:
            windows: a few windows, always the same; rows of a bare tensor [count, length] count as
                one document each. A dozen or two of some hundred tokens tell heads apart.
            every: steps between measurements.
            output: file of JSON lines, one a measurement, which `hs.HeadSeries.load` reads. A run
                that is resumed adds to it.
            thresholds: the limits of the verdicts.
            patience: measurements in a row that make a collapse.
            batch_size: windows per forward pass; by default about 4,096 tokens.
            attention: as in `measure`.

        Raises:
            SettingsError: fewer than two documents, which give no interval; `every` or `patience`
                below 1.
        """
        self.windows = as_windows(windows)
        faults = [
            f"{name}: expected 1 or more, got {value!r}"
            for name, value in (("every", every), ("patience", patience))
            if type(value) is not int or value < 1
        ]
        if len(set(self.windows.documents)) < 2:
            faults.append("windows: expected two documents or more, since one gives no interval")
        if faults:
            raise SettingsError("; ".join(faults))
        self.every = every
        self._output = None if output is None else Path(output)
        self._thresholds, self._patience = thresholds, patience
        self._batch_size, self._attention = batch_size, attention
        self._source: SeriesSource | None = None
        self._points: list[SeriesPoint] = []
        self._told: set[tuple[Any, ...]] = set()
        self._trainer: Trainer | None = None

    @property
    def series(self) -> HeadSeries:
        """All that was measured so far.

        Raises:
            SettingsError: nothing was measured yet.
        """
        if self._source is None:
            raise SettingsError("nothing was measured yet; train first, or call measure")
        return HeadSeries(self._source, tuple(self._points))

    def attach(self, trainer: "Trainer") -> "HeadMonitor":
        """Adds the monitor to a Trainer, whose log then has its counts; returns the monitor.

        A callback that is only listed in `Trainer(callbacks=…)` cannot reach TensorBoard and the
        like; its counts are then in `trainer.state.log_history` alone.
        """
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)
        return self

    def measure(self, model: nn.Module, step: int) -> SeriesPoint | None:
        """Measures all heads now, adds them to the series and the file, and warns of crossings.

        Args:
            model: the model, also inside DistributedDataParallel or compiled.
            step: optimiser steps taken so far. Later measurements of an earlier attempt go.

        Returns:
            The measurement; None in every process but the first.

        Raises:
            ModelError, UnsupportedModel, SettingsError: as `hs.measure`, or the weights are shared
                out among processes.
            OutputError: the file holds a run that this one does not continue.
            WriteError: it cannot be written.
        """
        if _rank() != 0:
            return None
        with untouched_run(model):
            inner = cast(PreTrainedModel, whole_model(model))
            stats = measure(
                inner, self.windows, batch_size=self._batch_size, attention=self._attention
            )
            diagnosis = diagnose(stats, self._thresholds, draws=_DRAWS)
            source = SeriesSource.of(diagnosis, self._patience, model_id(inner))
            point = SeriesPoint.of(diagnosis, step, f"step {step}")
            self._go_back(source, step)
            self._points.append(point)
            if self._output is not None:
                append_line(self._output)(point_entry(point))
            self._warn()
        return point

    def on_train_begin(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,
    ) -> None:
        """Measures the start: what cannot be measured is refused before anything is spent."""
        if state.is_world_process_zero:
            self._record(self.measure(kwargs["model"], state.global_step), state, control)

    def on_step_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,
    ) -> None:
        """Measures where it is time to."""
        if state.global_step % self.every == 0:
            self._measure_on_the_way(state, control, kwargs["model"])

    def on_train_end(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        **kwargs: Any,
    ) -> None:
        """Measures the end."""
        if not self._points or self._points[-1].step != state.global_step:
            self._measure_on_the_way(state, control, kwargs["model"])

    def _measure_on_the_way(
        self, state: "TrainerState", control: "TrainerControl", model: nn.Module
    ) -> None:
        if not state.is_world_process_zero:
            return
        try:
            point = self.measure(model, state.global_step)
        except HeadsurgeonError as error:
            # a run of days is not to end because a disk is full, or its weights are NaN for once
            _say(f"step {state.global_step}: heads were not measured: {error}")
            return
        self._record(point, state, control)

    def _record(
        self, point: SeriesPoint | None, state: "TrainerState", control: "TrainerControl"
    ) -> None:
        """Hands counts to the Trainer's log."""
        if point is None:
            return
        counts = self._counts(point)
        if self._trainer is None:
            state.log_history.append({**counts, "step": state.global_step})
            return
        from transformers import Trainer

        # logging takes the mark away that the Trainer's own losses are due; and a subclass of it
        # may use the occasion to empty averages of its own
        due = control.should_log
        Trainer.log(self._trainer, counts)
        control.should_log = due

    def _counts(self, point: SeriesPoint) -> dict[str, float]:
        mass = point.mass[np.isfinite(point.mass)]
        return {
            "heads/sick": int(self._thresholds.is_sick(mass).sum()),
            "heads/dead": int((mass > self._thresholds.dead).sum()),
            "heads/mean_mass": float(mass.mean()),
            "heads/highest_mass": float(mass.max()),
        }

    def _go_back(self, source: SeriesSource, step: int) -> None:
        """Makes ready for a measurement at a step: what there is of later ones is out of date."""
        first = self._source is None
        if first and self._output is not None and self._output.exists():
            earlier = HeadSeries.load(self._output)
            if not earlier.source.same_measuring(source):
                raise OutputError(
                    f"{self._output} holds measurements on other windows or of another model; "
                    "choose another name, or move it away"
                )
            self._points = list(earlier.points)
        kept = [point for point in self._points if point.step < step]
        if self._points and not kept and self._points[-1].step > step:
            there = self._output or "this monitor"
            raise OutputError(
                f"{there} holds another run, up to step {self._points[-1].step}, which one at step "
                f"{step} does not continue; give the new run a monitor and a file of its own"
            )
        stale = len(kept) < len(self._points)
        self._source, self._points = source, kept
        if self._output is not None and (first or stale):
            HeadSeries(source, tuple(kept)).save(self._output)

    def _warn(self) -> None:
        now = len(self._points) - 1
        for kind in (COLLAPSED, CAME_BACK):
            new = [
                each
                for each in self.series.crossings
                if each.kind == kind and each.noticed == now and (each.head, kind) not in self._told
            ]
            self._told |= {(each.head, kind) for each in new}
            if new:
                _say(self._sentence(new, kind))

    def _sentence(self, crossings: list[Crossing], kind: str) -> str:
        point = self._points[-1]
        heads = ", ".join(
            f"{each.head} (mass {point.mass[each.head]:.2f} "
            f"[{point.low[each.head]:.2f}, {point.high[each.head]:.2f}], since step "
            f"{self._points[each.measured].step})"
            for each in crossings
        )
        where = "above" if kind == COLLAPSED else "at or below"
        times = "measurement" if self._patience == 1 else f"{self._patience} measurements in a row"
        verb = "collapsed onto the first token" if kind == COLLAPSED else "came back from it"
        return (
            f"step {point.step}: {heads}: {verb}; the interval lies {where} "
            f"{self._thresholds.sink:g} at {times}"
        )


def _rank() -> int:
    distributed = torch.distributed
    ready = distributed.is_available() and distributed.is_initialized()
    return distributed.get_rank() if ready else 0


def _say(message: str) -> None:
    warnings.warn(message, category=HeadsurgeonWarning, stacklevel=3)
