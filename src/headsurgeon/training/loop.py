"""The training loop: AdamW on the slices, stoppable at any step, resumed bit for bit on the CPU."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from headsurgeon.arguments import checked
from headsurgeon.data import Texts, Windows, equal_parts
from headsurgeon.folders import locked
from headsurgeon.models.forward import check_windows
from headsurgeon.operation.learner import Learner
from headsurgeon.operation.sharding import check_unsharded
from headsurgeon.training.contexts import (
    computing,
    differentiable,
    gradient_checkpointing,
    masters,
    own_randomness,
    stoppable,
    training_mode,
)
from headsurgeon.training.dev_evaluation import DevEvaluation, check_probes
from headsurgeon.training.loss_terms import terms_of
from headsurgeon.training.optimiser import check_optimiser
from headsurgeon.training.processes import Processes
from headsurgeon.training.run_file import RUN_NAME
from headsurgeon.training.run_folder import identity, open_folder
from headsurgeon.training.run_result import Run
from headsurgeon.training.schedule import in_steps, last_step
from headsurgeon.training.session import Session
from headsurgeon.training.settings import TrainSettings
from headsurgeon.training.snapshots import snapshots_of
from headsurgeon.training.step_event import OnStep


@checked
def train(
    learner: Learner,
    train_windows: Windows,
    dev_windows: Windows,
    *,
    output: Path | str,
    settings: TrainSettings,
    probes: Mapping[str, Windows | Texts] | None = None,
    anchor: Windows | None = None,
    on_step: OnStep | None = None,
) -> Run:
    """Trains a patient's slices, or another learner, evaluating on dev windows.

    When `output` holds the same run, it is resumed from its last checkpoint; on the CPU the result
    is bit for bit that of an uninterrupted run. Afterwards the learner holds the values of the best
    evaluation, which may be step 0, or those that `settings.keep` names; `learner.step` says which.

    Args:
        learner: an open patient, or what `open_full` or `open_lora` made.
        train_windows, dev_windows: what is trained and evaluated on; `training_windows` cuts both
            out of a corpus as the settings say.
        output: folder for `run.json`, `log.jsonl`, `checkpoint/`, `snapshots/` and
            `patch.safetensors`.
        settings: how it is trained, such as `TrainSettings(max_tokens=200_000)`.
        probes: texts by name, cut into windows or whole, whose loss is logged at every evaluation
            and decides nothing.
        anchor: text on which the operated model is to keep saying what the untouched one said,
            where `settings.anchor` is above 0; its tokens come on top of the budget, and the run
            says how many they were.
        on_step: called after every step.

    Returns:
        The run.

    Raises:
        SettingsError, CorpusError, OutputError: bad input; all faulty settings are listed.
        StateError: the learner is merged or reverted, or what it trains is frozen.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the message says how to resume.
        WriteError: the disk is full; the last checkpoint is intact.

    Several processes, as `torchrun` starts them, may call this together; see `Processes`. Each has
    the whole model, on its own device.
    """
    learner.require_open()
    probes = check_probes(probes or {})
    for text in (train_windows, dev_windows, *probes.values(), *([anchor] if anchor else [])):
        for part in equal_parts(text):
            check_windows(part.tokens, learner.layout, learner.model)
    settings = in_steps(settings, len(train_windows))
    computing(learner.model, settings)
    check_optimiser(learner, settings)
    model = learner.model
    check_unsharded(model)
    processes = Processes(settings, model.device)
    with (
        differentiable(learner),
        _claimed(output, processes) as folder,
        training_mode(model),
        gradient_checkpointing(model, settings.gradient_checkpointing),
        own_randomness(model),
        stoppable() as stop,
    ):
        end = last_step(settings, len(train_windows))
        parameters = sum(tensor.numel() for tensor in learner.trainable().values())
        kept = snapshots_of(folder, settings, len(train_windows), end, parameters)
        # before it is rounded, since it is to hold the stock weights for a moment
        terms = terms_of(learner, settings, anchor)
        processes.by_first(
            lambda: open_folder(
                folder,
                identity(learner, train_windows, dev_windows, settings, probes, anchor),
                learner,
            )
        )
        dev = DevEvaluation(learner, dev_windows, settings, probes)
        with masters(learner, settings):
            session = Session(
                learner, train_windows, dev, folder, settings, on_step, stop, kept, terms, processes
            )
            session.resume()
            session.run()
            return session.finish()


@contextmanager
def _claimed(output: Path | str, processes: Processes) -> Iterator[Path]:
    """The folder of the run, held by the first of its processes."""
    with ExitStack() as held:
        yield processes.by_first(lambda: held.enter_context(locked(output, RUN_NAME)))
