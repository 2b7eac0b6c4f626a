"""Steps, evaluations and checkpoints of one run, from wherever it stands to its end."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

import torch
from accelerate import Accelerator

from headsurgeon.attention.choice import attending
from headsurgeon.data import Windows
from headsurgeon.errors import Interrupted, OperationError, StateError
from headsurgeon.files import append_line
from headsurgeon.models.loss import next_token_loss
from headsurgeon.operation.learner import Learner
from headsurgeon.training.checkpoint import (
    LAST,
    Progress,
    load_checkpoint,
    load_kept,
    save_checkpoint,
)
from headsurgeon.training.contexts import Stop, computing
from headsurgeon.training.dev_evaluation import evaluate_dev
from headsurgeon.training.log import LOG_NAME, Run, cut_back, dev_loss_at, keep
from headsurgeon.training.optimiser import Optimiser
from headsurgeon.training.run_folder import CHECKPOINTS, write_result
from headsurgeon.training.schedule import (
    last_step,
    learning_rate,
    seed_of_step,
    total_steps,
    windows_of_step,
)
from headsurgeon.training.settings import TrainSettings
from headsurgeon.training.snapshots import Snapshots


@dataclass(frozen=True)
class StepEvent:
    """What `on_step` is told after every step.

    Attributes:
        step, steps: steps completed, and of the whole run.
        loss: mean loss on the step's windows, nats per predicted token.
        learning_rate: the step's rate.
        gradient_norm: norm over all slices before clipping.
        tokens: tokens read so far.
        tokens_per_second: since this process started, evaluations included.
        seconds_left: at that speed.
        dev_loss, healthy: what the last evaluation found; None before the first one.
        heads: heads in the whole model, for comparison with `healthy`.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    tokens_per_second: float
    seconds_left: float
    dev_loss: float | None
    healthy: int | None
    heads: int


OnStep = Callable[[StepEvent], None]


class Session:
    """One process's share of a run."""

    def __init__(
        self,
        learner: Learner,
        train_windows: Windows,
        dev_windows: Windows,
        folder: Path,
        settings: TrainSettings,
        on_step: OnStep | None,
        stop: Stop,
        snapshots: Snapshots,
    ) -> None:
        self.learner = learner
        self.train_windows = train_windows
        self.dev_windows = dev_windows
        self.folder = folder
        self.settings = settings
        self.on_step = on_step
        self.stop = stop
        self.snapshots = snapshots
        self.steps = total_steps(settings, len(train_windows))
        self.end = last_step(settings, len(train_windows))
        self.slices = learner.trainable()
        # where the model is, is its own affair: `cpu=True` would bind the whole process
        self.accelerator = Accelerator(device_placement=False)
        if self.accelerator.num_processes > 1:
            raise StateError("training runs in one process; start it without `accelerate launch`")
        self.optimiser = Optimiser(learner, settings)
        self.progress = Progress()
        self.append = append_line(folder / LOG_NAME)
        self.started = time.monotonic()
        self.first_step = 0

    @property
    def checkpoints(self) -> Path:
        return self.folder / CHECKPOINTS

    @property
    def kept_step(self) -> int:
        """The step whose slices the run ends with, as things stand."""
        keep = self.settings.keep
        if isinstance(keep, int):
            return keep
        return self.progress.best_step if keep == "best" else self.end

    def resume(self) -> None:
        """Goes back to the last checkpoint, if there is one, and forgets what came after it."""
        if (self.checkpoints / LAST).exists():
            self.progress = load_checkpoint(self.checkpoints, self.slices, self.optimiser, self.end)
        self.snapshots.cut_back(self.progress.step)
        cut_back(self.folder / LOG_NAME, self.progress.step, self.progress.evaluated)
        self.first_step = self.progress.step

    def run(self) -> None:
        """Steps, evaluations and checkpoints until the budget is used up.

        Raises:
            Interrupted: the user asked to stop.
        """
        try:
            while True:
                evaluated = self._evaluate_if_due()
                due = self.progress.step % self.settings.checkpoint_every == 0
                finished = self.progress.evaluated == self.end
                self.snapshots.keep(self.learner, self.progress.step)
                if evaluated or due or finished or self.stop.requested:
                    self._save()
                if finished:
                    return
                if self.stop.requested:
                    raise KeyboardInterrupt
                with attending(self.learner.model, self.settings.attention, training=True):
                    self._step()
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped by {self.stop.reason} at step {self.progress.step} of {self.end}; the "
                f"same command with the same output folder ({self.folder}) goes on from there"
            ) from None

    def finish(self) -> Run:
        """The slices to end with in place, the patch on disk, the result in `run.json`."""
        kept = self.kept_step
        load_kept(self.checkpoints, self.slices, kept, self.settings.keep)
        self.learner.step = kept
        patch = self.learner.save(self.folder / self.learner.file_name)
        run = Run(
            folder=self.folder,
            steps=self.end,
            tokens=self.end * self.settings.tokens_per_step,
            best_step=self.progress.best_step,
            best_dev_loss=float(self.progress.best_loss or 0.0),
            log=self.folder / LOG_NAME,
            patch=patch,
            kept_step=kept,
            kept_dev_loss=dev_loss_at(self.folder / LOG_NAME, kept),
            snapshots=self.snapshots.paths,
        )
        write_result(self.folder, run.figures())
        return run

    def _step(self) -> None:
        """One optimiser step; abandoned without effect when the user asks to stop meanwhile."""
        step, settings = self.progress.step, self.settings
        model = self.learner.model
        torch.manual_seed(seed_of_step(step, settings))
        chosen = windows_of_step(step, settings, len(self.train_windows))
        tokens = self.train_windows.tokens[torch.from_numpy(chosen)]
        predicted = tokens.numel() - len(tokens)
        total = 0.0
        self.optimiser.zero_grad()
        for batch in tokens.split(settings.batch_size):
            with computing(model, settings):
                loss = next_token_loss(model, batch.to(model.device)) / predicted
            self.accelerator.backward(loss)
            total += loss.item()
            if self.stop.requested:
                self.optimiser.zero_grad()
                return
        norm = float(self.accelerator.clip_grad_norm_(self.slices.values(), settings.clip))
        if not (isfinite(norm) and isfinite(total)):
            raise OperationError(
                f"the loss or its gradient at step {step} is not finite (loss {total:.4g}); the "
                "last checkpoint is whole: start anew with a lower learning rate"
            )
        rate = learning_rate(step, self.steps, settings)
        self.optimiser.step(rate)
        self.optimiser.zero_grad()
        self.progress.step += 1
        self._report(total, rate, norm)

    def _report(self, loss: float, rate: float, norm: float) -> None:
        progress, per_step = self.progress, self.settings.tokens_per_step
        seconds = time.monotonic() - self.started
        done = progress.step - self.first_step
        event = StepEvent(
            step=progress.step,
            steps=self.end,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=progress.step * per_step,
            tokens_per_second=done * per_step / seconds,
            seconds_left=(self.end - progress.step) * seconds / done,
            dev_loss=progress.dev_loss,
            healthy=progress.healthy,
            heads=len(self.learner.layout.attention_layers) * self.learner.layout.heads,
        )
        shown = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second")
        self.append({"kind": "step"} | {name: getattr(event, name) for name in shown})
        if self.on_step is not None:
            try:
                self.on_step(event)
            except KeyboardInterrupt:
                self.stop.request()

    def _evaluate_if_due(self) -> bool:
        progress = self.progress
        named = (self.end, self.kept_step, *self.snapshots.steps)
        due = progress.step % self.settings.evaluate_every == 0 or progress.step in named
        if not due or progress.evaluated == progress.step or self.stop.requested:
            return False
        found = evaluate_dev(
            self.learner,
            self.dev_windows,
            self.settings.statistics_windows,
            computing(self.learner.model, self.settings),
            # a kernel that trains may still lack the log-sum-exp that measuring needs
            "stock" if self.settings.attention == "stock" else "auto",
        )
        progress.evaluated = progress.step
        progress.dev_loss, progress.healthy = found.dev_loss, found.healthy
        if progress.best_loss is None or found.dev_loss < progress.best_loss:
            progress.best_step, progress.best_loss = progress.step, found.dev_loss
        tokens = progress.step * self.settings.tokens_per_step
        self.append(
            {"kind": "evaluation", "step": progress.step, "tokens": tokens, **asdict(found)}
        )
        return True

    def _save(self) -> None:
        for name, slice_ in self.slices.items():
            if not bool(torch.isfinite(slice_).all()):
                raise OperationError(
                    f"the slice of {name} is not finite at step {self.progress.step}; the last "
                    "checkpoint is whole: start anew with a lower learning rate"
                )
        keep(self.folder / LOG_NAME)
        save_checkpoint(
            self.checkpoints,
            self.slices,
            self.optimiser,
            self.progress,
            self.kept_step,
            self.settings.keep,
        )
