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

from headsurgeon.errors import SettingsError, StateError
from headsurgeon.operation.learner import Learner
from headsurgeon.training.settings import TrainSettings


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
def masters(learner: Learner, settings: TrainSettings) -> Iterator[None]:
    """Holds what is trained, and so its moments, in the precision that is wanted.

    Afterwards everything has the precision that it had.

    In bf16 nothing keeps what an update loses: one below half a unit in the last place of a weight
    does not move it, which at a rate of 5e-5 is the fate of 69 % of BLOOM-1b7's Xavier weights.
    """
    if settings.masters == "fp32":
        yield
        return
    before = [(tensor, tensor.dtype) for tensor in learner.trainable().values()]
    for tensor, _ in before:
        with torch.no_grad():
            # in place as well, since that is what the layers notice
            tensor.copy_(tensor.bfloat16())
        _recast(tensor, torch.bfloat16)
    try:
        yield
    finally:
        for tensor, dtype in before:
            _recast(tensor, dtype)


def _recast(tensor: nn.Parameter, dtype: torch.dtype) -> None:
    tensor.grad = None
    tensor.data = tensor.data.to(dtype)


@contextmanager
def own_randomness(model: PreTrainedModel) -> Iterator[None]:
    """Afterwards the global generators are where they were."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def differentiable(learner: Learner) -> Iterator[None]:
    """Gradients on, whatever the caller has switched off.

    Raises:
        StateError: what is to be trained is frozen, or was made in inference mode, which no
            gradient can enter.
    """
    for name, tensor in [*learner.trainable().items(), *learner.model.named_parameters()]:
        if tensor.is_inference():
            raise StateError(
                f"{name} was made under torch.inference_mode, so it cannot take part in training; "
                "load the model and operate on it outside"
            )
    for name, slice_ in learner.trainable().items():
        if not slice_.requires_grad:
            raise StateError(
                f"{name} is not to be trained (requires_grad is False); call reopen(), or "
                "requires_grad_(True) on it, before training"
            )
    with torch.inference_mode(False), torch.enable_grad():
        yield


# what Ctrl-C, schedulers and closing terminals send; not every system has the last one
_STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stop:
    """Whether the user or a scheduler has asked to stop; the second Ctrl-C is immediate.

    Attributes:
        requested: whether anyone has.
        reason: the name of the signal, in words.
    """

    def __init__(self) -> None:
        self.requested = False
        self.reason = "Ctrl-C"

    def request(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Asks to stop at the next safe point; as a signal handler or directly."""
        if self.requested:
            # schedulers may repeat themselves, to one process or to a group, and are not impatient
            if number in (0, signal.SIGINT):
                raise KeyboardInterrupt
            return
        if number not in (0, signal.SIGINT):
            self.reason = signal.Signals(number).name
        self.requested = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """While open, Ctrl-C, SIGTERM and SIGHUP do not tear an optimiser step apart.

    A signal that the process ignores, as SIGHUP under `nohup`, stays ignored. Afterwards every
    handler is the one it was.
    """
    stop = Stop()
    # only the main thread may set handlers, and only it receives Ctrl-C
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {
        number: signal.getsignal(number)
        for number in _STOPPING
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    for number in previous:
        signal.signal(number, stop.request)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
