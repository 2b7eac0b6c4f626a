"""The training loop: AdamW on the slices, stoppable at any step, resumed bit for bit on the CPU."""

from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from headsurgeon.data import Windows, windows
from headsurgeon.folders import locked
from headsurgeon.models.forward import check_windows
from headsurgeon.operation import Patient
from headsurgeon.training.contexts import (
    computing,
    differentiable,
    gradient_checkpointing,
    own_randomness,
    stoppable,
    training_mode,
)
from headsurgeon.training.log import Run
from headsurgeon.training.run_folder import RUN_NAME, identity, open_folder
from headsurgeon.training.schedule import windows_needed
from headsurgeon.training.session import OnStep, Session
from headsurgeon.training.settings import TrainSettings, train_settings


def train(
    patient: Patient,
    *,
    corpus: str,
    tokenizer: PreTrainedTokenizerBase,
    output: Path | str,
    settings: TrainSettings | None = None,
    preset: str = "default",
    on_step: OnStep | None = None,
    **changes: Any,
) -> Run:
    """Trains a patient's slices on the train split of a corpus, evaluating on its dev split.

    When `output` holds the same run, it goes on from its last checkpoint; on the CPU the result is
    bit for bit that of an uninterrupted run. Afterwards the patient holds the slices of the best
    evaluation, which may be step 0.

    Args:
        patient: an open patient.
        corpus: a SPEC, see `headsurgeon.data.documents`.
        tokenizer: the model's tokenizer.
        output: folder for `run.json`, `log.jsonl`, `checkpoint/` and `patch.safetensors`.
        settings: all settings at once; otherwise `preset` and `changes`.
        preset: `default` or `paper`.
        on_step: called after every step.
        **changes: fields of `TrainSettings`, such as `max_tokens=200_000`.

    Returns:
        The run.

    Raises:
        SettingsError, CorpusError, OutputError: bad input; all faulty settings are listed.
        StateError: the patient is merged or reverted, or its slices are frozen.
        Interrupted: Ctrl-C, SIGTERM or SIGHUP; the message says how to go on.
        WriteError: the disk is full; the last checkpoint is whole.
    """
    chosen = settings or train_settings(preset, **changes)
    cut = partial(windows, corpus, tokenizer, length=chosen.length, first_token=chosen.first_token)
    return train_on(
        patient,
        cut(split="train", count=windows_needed(chosen), seed=chosen.seed),
        cut(split="dev", count=chosen.dev_windows),
        output=output,
        settings=chosen,
        on_step=on_step,
    )


def train_on(
    patient: Patient,
    train_windows: Windows,
    dev_windows: Windows,
    *,
    output: Path | str,
    settings: TrainSettings,
    on_step: OnStep | None = None,
) -> Run:
    """As `train`, on windows that exist already."""
    patient.require_open()
    for part in (train_windows, dev_windows):
        check_windows(part.tokens, patient.layout, patient.model)
    computing(patient.model, settings)
    model = patient.model
    with (
        differentiable(patient),
        locked(output, RUN_NAME) as folder,
        training_mode(model),
        gradient_checkpointing(model, settings.gradient_checkpointing),
        own_randomness(model),
        stoppable() as stop,
    ):
        open_folder(folder, identity(patient, train_windows, dev_windows, settings), patient)
        session = Session(patient, train_windows, dev_windows, folder, settings, on_step, stop)
        session.resume()
        session.run()
        return session.finish()
