"""The steps, evaluations and checkpoints of one run, begun or resumed from its last checkpoint."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path

import torch

from headsurgeon.attention.choice import attending
from headsurgeon.data import Windows
from headsurgeon.errors import Interrupted, OperationError
from headsurgeon.files import append_line
from headsurgeon.operation.learner import Learner
from headsurgeon.training.checkpoint import (
    LAST,
    Progress,
    load_checkpoint,
    load_kept,
    save_checkpoint,
)
from headsurgeon.training.contexts import Stop
from headsurgeon.training.cost import COST, Cost, peak_of_process
from headsurgeon.training.dev_evaluation import DevEvaluation
from headsurgeon.training.log import cut_back, dev_loss_at, keep, start_entry
from headsurgeon.training.loss_terms import Term, backward
from headsurgeon.training.optimiser import Optimiser
from headsurgeon.training.processes import Processes
from headsurgeon.training.run_file import LOG_NAME
from headsurgeon.training.run_folder import CHECKPOINTS, result_as_written, write_result
from headsurgeon.training.run_result import Run
from headsurgeon.training.schedule import (
    last_step,
    learning_rate,
    named_steps,
    seed_of_step,
    total_steps,
    windows_of_step,
)
from headsurgeon.training.settings import TrainSettings
from headsurgeon.training.snapshots import Snapshots
from headsurgeon.training.step_event import OnStep, StepEvent


class Session:
    """One process's share of a run."""

    def __init__(
        self,
        learner: Learner,
        train_windows: Windows,
        dev: DevEvaluation,
        folder: Path,
        settings: TrainSettings,
        on_step: OnStep | None,
        stop: Stop,
        snapshots: Snapshots,
        terms: Sequence[Term],
        processes: Processes,
    ) -> None:
        self.learner = learner
        self.train_windows = train_windows
        self.dev = dev
        self.folder = folder
        self.settings = settings
        self.on_step = on_step
        self.stop = stop
        self.snapshots = snapshots
        self.terms = terms
        self.processes = processes
        self.steps = total_steps(settings, len(train_windows))
        self.end = last_step(settings, len(train_windows))
        self.evaluated_at = named_steps("evaluate_at", settings, len(train_windows), self.end)
        self.slices = learner.trainable()
        self.optimiser = Optimiser(learner, settings)
        self.progress = Progress()
        self.append = append_line(folder / LOG_NAME) if processes.first else _nothing
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

    @property
    def anchor_tokens(self) -> int:
        """Tokens read so far besides those of the training text."""
        return self.progress.step * sum(term.tokens_per_step for term in self.terms)

    def resume(self) -> None:
        """Goes back to the last checkpoint, if there is one, and forgets what came after it."""
        self.progress = self.processes.by_first(self._resume)
        self._take_over()
        state = self.processes.by_first(self.optimiser.state)
        if state and not self.processes.first:
            self.optimiser.restore(state)
        self.first_step = self.progress.step

    def _resume(self) -> Progress:
        if (self.checkpoints / LAST).exists():
            self.progress = load_checkpoint(self.checkpoints, self.slices, self.optimiser, self.end)
        self.snapshots.cut_back(self.progress.step)
        if cut_back(self.folder / LOG_NAME, self.progress.step, self.progress.evaluated) == 0:
            self.append(start_entry(asdict(self.dev.untouched), self.dev.document_tokens))
        return self.progress

    def _take_over(self) -> None:
        """Has every process train the same values as the first."""
        values = self.processes.by_first(
            lambda: {name: slice_.detach().cpu() for name, slice_ in self.slices.items()}
        )
        if self.processes.first:
            return
        with torch.no_grad():
            for name, slice_ in self.slices.items():
                slice_.copy_(values[name])

    def run(self) -> None:
        """Steps, evaluations and checkpoints until the budget is used up.

        Raises:
            Interrupted: the user asked to stop.
        """
        try:
            while True:
                stopping = self.processes.any(self.stop.requested)
                evaluated = not stopping and self._evaluate_if_due()
                due = self.progress.step % self.settings.checkpoint_every == 0
                finished = self.progress.evaluated == self.end
                self.processes.by_first(
                    lambda: self.snapshots.keep(self.learner, self.progress.step)
                )
                if evaluated or due or finished or stopping:
                    self.processes.by_first(self._save)
                if finished:
                    return
                if stopping:
                    raise KeyboardInterrupt
                with attending(self.learner.model, self.settings.attention, training=True):
                    self._step()
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped by {self.stop.reason} at step {self.progress.step} of {self.end}; the "
                f"same command with the same output folder ({self.folder}) resumes from there"
            ) from None

    def finish(self) -> Run:
        """The slices to end with in place, the patch on disk, the result in `run.json`."""
        self.learner.step = self.kept_step
        run = self.processes.by_first(self._finish)
        self._take_over()
        return run

    def _finish(self) -> Run:
        kept = self.kept_step
        load_kept(self.checkpoints, self.slices, kept, self.settings.keep)
        patch = self.folder / self.learner.file_name
        if not result_as_written(self.folder, self.learner.file_name):
            patch = self.learner.save(patch)
        run = Run(
            folder=self.folder,
            steps=self.end,
            tokens=self.end * self.settings.tokens_per_step,
            best_step=self.progress.best_step,
            best_dev_loss=float(self.progress.best_loss or 0.0),
            patch=patch,
            kept_step=kept,
            kept_dev_loss=dev_loss_at(self.folder / LOG_NAME, kept),
            snapshots=self.snapshots.paths,
            anchor_tokens=self.anchor_tokens,
        )
        write_result(self.folder, run.figures(), patch.name)
        self._write_cost()
        return run

    def _write_cost(self) -> None:
        if self.progress.step == self.first_step and (self.folder / COST).exists():
            # the run had come to its end before
            return
        device = self.learner.model.device
        on_cuda = device.type == "cuda"
        Cost(
            seconds=round(time.monotonic() - self.started, 1),
            peak_bytes=torch.cuda.max_memory_allocated(device) if on_cuda else peak_of_process(),
            memory="of the GPU" if on_cuda else "of the process",
        ).save(self.folder / COST)

    def _step(self) -> None:
        """One optimiser step; abandoned without effect when the user asks to stop meanwhile."""
        step, settings = self.progress.step, self.settings
        torch.manual_seed(seed_of_step(step, settings) + self.processes.rank)
        indices = windows_of_step(step, settings, len(self.train_windows))
        tokens = self.processes.share(self.train_windows.tokens[torch.from_numpy(indices)])
        self.optimiser.zero_grad()
        accelerator = self.processes.accelerator
        # several processes stop together, between steps
        stop = self.stop if self.processes.count == 1 else Stop()
        losses = backward(
            self.learner, settings, self.terms, step, tokens, accelerator.backward, stop
        )
        if stop.requested:
            self.optimiser.zero_grad()
            return
        self.processes.average(self.slices.values())
        losses = self.processes.means(losses)
        norm = float(accelerator.clip_grad_norm_(self.slices.values(), settings.clip))
        if not all(map(isfinite, (norm, *losses.values()))):
            raise OperationError(
                f"the loss or its gradient at step {step} is not finite (loss "
                f"{losses['loss']:.4g}); the last checkpoint is intact: start over with a lower "
                "learning rate"
            )
        rate = learning_rate(step, self.steps, settings)
        self.optimiser.step(rate)
        self.optimiser.zero_grad()
        self.progress.step += 1
        self._report(losses, rate, norm)

    def _report(self, losses: dict[str, float], rate: float, norm: float) -> None:
        progress, per_step = self.progress, self.settings.tokens_per_step
        seconds = time.monotonic() - self.started
        done = progress.step - self.first_step
        event = StepEvent(
            step=progress.step,
            steps=self.end,
            loss=losses["loss"],
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
        terms = {term.name: losses[term.name] for term in self.terms}
        further = {"terms": terms, "anchor_tokens": self.anchor_tokens} if terms else {}
        self.append({"kind": "step"} | {name: getattr(event, name) for name in shown} | further)
        if self.on_step is not None and self.processes.first:
            try:
                self.on_step(event)
            except KeyboardInterrupt:
                self.stop.request()

    def _evaluate_if_due(self) -> bool:
        progress = self.progress
        named = (self.end, self.kept_step, *self.snapshots.steps, *self.evaluated_at)
        due = progress.step % self.settings.evaluate_every == 0 or progress.step in named
        if not due or progress.evaluated == progress.step:
            return False
        evaluation = self.processes.by_first(self.dev.evaluate)
        progress.evaluated = progress.step
        progress.dev_loss, progress.healthy = evaluation.dev_loss, evaluation.healthy
        if progress.best_loss is None or evaluation.dev_loss < progress.best_loss:
            progress.best_step, progress.best_loss = progress.step, evaluation.dev_loss
        tokens = progress.step * self.settings.tokens_per_step
        self.append(
            {"kind": "evaluation", "step": progress.step, "tokens": tokens, **asdict(evaluation)}
        )
        return True

    def _save(self) -> None:
        for name, slice_ in self.slices.items():
            if not bool(torch.isfinite(slice_).all()):
                raise OperationError(
                    f"the slice of {name} is not finite at step {self.progress.step}; the last "
                    "checkpoint is intact: start over with a lower learning rate"
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


def _nothing(entry: object) -> None:
    """What the other processes write."""
