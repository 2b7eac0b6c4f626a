"""States a model or process is in while it trains, and leaves afterwards, also on error."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from headsurgeon.errors import SettingsError
from headsurgeon.train.settings import TrainSettings


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """Switches dropout on; afterwards every module has the flag it had."""
    flags = {module: module.training for module in model.modules()}
    model.train()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


@contextmanager
def gradient_checkpointing(model: PreTrainedModel, enabled: bool) -> Iterator[None]:
    """Lets the model hold the activations of one layer at a time."""
    # the model's own property for this was renamed within transformers 5, the flag was not
    already = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    if not enabled or already:
        yield
        return
    # renamed as well; the old name warns where the new one exists
    enable: Callable[[dict[str, Any]], None] = getattr(
        model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
    )
    disable: Callable[[], None] = getattr(
        model, "activation_checkpointing_disable", model.gradient_checkpointing_disable
    )
    enable({"use_reentrant": False})
    # it also makes the embeddings' output require a gradient, which would draw every layer below
    # the lowest operated one into the backward pass
    model.disable_input_require_grads()
    try:
        yield
    finally:
        disable()


def computing(model: PreTrainedModel, settings: TrainSettings) -> AbstractContextManager[Any]:
    """The precision the forward pass runs in.

    Raises:
        SettingsError: fp32 is asked of a model whose weights are narrower.
    """
    if settings.compute == "fp32" and model.dtype != torch.float32:
        raise SettingsError(
            f"compute is fp32, but the model's weights are {model.dtype}; load it in fp32, or "
            "choose compute auto or bf16"
        )
    if settings.compute == "bf16":
        return torch.autocast(model.device.type, torch.bfloat16)
    return nullcontext()


@contextmanager
def own_randomness(model: PreTrainedModel) -> Iterator[None]:
    """Afterwards the global generators are where they were."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


class Stop:
    """Whether the user has asked to stop; the first Ctrl-C only asks, the second is immediate."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Asks to stop at the next safe point; as a signal handler or directly."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While open, Ctrl-C does not tear an optimiser step apart."""
    stop = Stop()
    # only the main thread may set handlers, and only it receives Ctrl-C
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.signal(signal.SIGINT, stop.request)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
