"""States a model or process is in while it trains, and leaves afterwards, also on error."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from headsurgeon.errors import SettingsError, StateError
from headsurgeon.operation import Patient
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
def masters(slices: Sequence[nn.Parameter], settings: TrainSettings) -> Iterator[None]:
    """Holds the slices, and so their moments, in the precision that is wanted; afterwards in fp32.

    In bf16 nothing keeps what an update loses: one below half a unit in the last place of a weight
    does not move it, which at a rate of 5e-5 is the fate of 69 % of BLOOM-1b7's Xavier weights.
    """
    if settings.masters == "fp32":
        yield
        return
    for slice_ in slices:
        with torch.no_grad():
            # in place as well, since that is what the layers notice
            slice_.copy_(slice_.bfloat16())
        _recast(slice_, torch.bfloat16)
    try:
        yield
    finally:
        for slice_ in slices:
            _recast(slice_, torch.float32)


def _recast(slice_: nn.Parameter, dtype: torch.dtype) -> None:
    slice_.grad = None
    slice_.data = slice_.data.to(dtype)


@contextmanager
def own_randomness(model: PreTrainedModel) -> Iterator[None]:
    """Afterwards the global generators are where they were."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


@contextmanager
def differentiable(patient: Patient) -> Iterator[None]:
    """Gradients on, whatever the caller has switched off.

    Raises:
        StateError: slices are frozen, or were made in inference mode, which no gradient can enter.
    """
    for name, tensor in [*patient.named_slices().items(), *patient.model.named_parameters()]:
        if tensor.is_inference():
            raise StateError(
                f"{name} was made under torch.inference_mode, so it cannot take part in training; "
                "load the model and operate on it outside"
            )
    for name, slice_ in patient.named_slices().items():
        if not slice_.requires_grad:
            raise StateError(
                f"the slice of {name} is frozen (requires_grad is False); call patient.reopen(), "
                "or slice.requires_grad_(True), before training"
            )
    with torch.inference_mode(False), torch.enable_grad():
        yield


# what Ctrl-C, schedulers and closing terminals send; not every system has the last one
_STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stop:
    """Whether the user or a scheduler has asked to stop; the second time is immediate.

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
            raise KeyboardInterrupt
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
