"""How much memory a training run will take, found out before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headsurgeon.attention.blocked import BLOCK
from headsurgeon.attention.choice import attending
from headsurgeon.attention.fused import GROUP_NUMBERS
from headsurgeon.models.forward import TOKENS_PER_BATCH, evaluating
from headsurgeon.models.loss import CHUNK_BYTES
from headsurgeon.operate import Patient
from headsurgeon.train.live_memory import LiveMemory, extrapolated
from headsurgeon.train.modes import (
    computing,
    gradient_checkpointing,
    own_randomness,
    training_mode,
)
from headsurgeon.train.settings import TrainSettings

# fp32; AdamW's two moments
SLICE_BYTES = 4
MOMENT_BYTES = 8
# logits of one chunk, and what their log-sum-exp or log-softmax takes beside them
CHUNK_COPIES = 2
# temporaries of a group of heads, or of a block of queries, while statistics are taken
STATISTICS_COPIES = 6


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a run in bytes, beside the model's own weights.

    Attributes:
        weights: the model's parameters; part of no other figure.
        slice_parameters: number of values in all slices.
        slices: the fp32 slices, and the stock values that `revert` needs, kept in main memory.
        gradients: of the slices.
        optimiser: AdamW's moments of the slices, and one step counter per tensor.
        activations: what the forward pass keeps for the backward pass.
        logits: the loss's chunk of logits.
        training: the highest point of a step: slices, optimiser, and whatever is alive at a time.
        evaluation: the same of an evaluation on dev text.
    """

    weights: int
    slice_parameters: int
    slices: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    training: int
    evaluation: int

    @property
    def peak(self) -> int:
        """The highest point of the run, above the weights."""
        return max(self.training, self.evaluation)


def memory_plan(patient: Patient, settings: TrainSettings) -> MemoryPlan:
    """Estimates the memory of training `patient` with `settings`.

    Forward and backward run on a few tokens, noting what every operation keeps; the rest is
    arithmetic. So the estimate holds for any family, with or without fused attention and gradient
    checkpointing. It leaves out what the allocator cannot reuse and what libraries take for
    themselves, some tens of megabytes. The patient is left as it was.

    Raises:
        StateError: the patient is merged or reverted.
        SettingsError: `attention` or `compute` do not suit the model.
    """
    patient.require_open()
    slices = patient.slices()
    count = sum(slice_.numel() for slice_ in slices)
    gradients = count * SLICE_BYTES
    optimiser = count * MOMENT_BYTES + 4 * len(slices)
    stock = sum(
        slice_.numel() * patient.model.get_parameter(name).element_size()
        for name, slice_ in patient.named_slices().items()
    )
    kept = [slice_.grad for slice_ in slices]
    try:
        activations, step = _step_bytes(patient, settings, slices)
        forward = _evaluation_bytes(patient, settings)
    finally:
        for slice_, gradient in zip(slices, kept, strict=True):
            slice_.grad = gradient
    # gradients of the windows before wait while the next ones run
    waiting = gradients if settings.accumulation > 1 else 0
    fixed = gradients + stock + optimiser
    return MemoryPlan(
        weights=sum(
            parameter.numel() * parameter.element_size()
            for name, parameter in patient.model.named_parameters()
            if "slice_" not in name
        ),
        slice_parameters=count,
        slices=count * SLICE_BYTES + stock,
        gradients=gradients,
        optimiser=optimiser,
        activations=activations,
        logits=_logits_bytes(patient, settings.batch_size * (settings.length - 1)),
        training=fixed + waiting + step,
        evaluation=fixed + forward,
    )


def _step_bytes(
    patient: Patient, settings: TrainSettings, slices: Sequence[torch.nn.Parameter]
) -> tuple[int, int]:
    """Bytes kept when the forward pass ends, and the highest point of forward and backward."""
    model = patient.model
    forward_operations = 0

    def timeline_of(length: int) -> list[int]:
        nonlocal forward_operations
        tokens = _tokens(patient, settings.batch_size, length)
        for slice_ in slices:
            slice_.grad = torch.zeros_like(slice_) if settings.accumulation > 1 else None
        with LiveMemory() as memory:
            with computing(model, settings):
                hidden: Tensor = model.base_model(input_ids=tokens, use_cache=False)[0]
            forward_operations = len(memory.timeline)
            hidden.backward(torch.zeros_like(hidden))
        found: list[int] = memory.timeline
        return found

    with (
        training_mode(model),
        attending(model, settings.attention, training=True),
        gradient_checkpointing(model, settings.gradient_checkpointing),
        own_randomness(model),
    ):
        timeline = extrapolated(timeline_of, settings.length)
    activations = int(timeline[forward_operations - 1])
    predicted = settings.batch_size * (settings.length - 1)
    during_loss = activations + _logits_bytes(patient, predicted) * CHUNK_COPIES
    # the loss keeps a copy of the hidden states and their gradient
    during_loss += 3 * predicted * patient.layout.hidden * model.dtype.itemsize
    return activations, max(int(timeline.max()), during_loss)


def _evaluation_bytes(patient: Patient, settings: TrainSettings) -> int:
    """The highest point of an evaluation: a forward pass without gradients, loss, statistics."""
    model, layout, length = patient.model, patient.layout, settings.length
    fitting = max(1, TOKENS_PER_BATCH // length)
    batch = min(fitting, settings.dev_windows)

    def timeline_of(tried: int) -> list[int]:
        tokens = _tokens(patient, batch, tried)
        with LiveMemory() as memory, computing(model, settings):
            model.base_model(input_ids=tokens, use_cache=False)
        timeline: list[int] = memory.timeline
        return timeline

    with (
        torch.no_grad(),
        evaluating(model),
        attending(model, settings.attention, training=True),
    ):
        timeline = extrapolated(timeline_of, length)
    logits = _logits_bytes(patient, batch * (length - 1)) * CHUNK_COPIES
    measured = min(fitting, settings.statistics_windows)
    block = max(GROUP_NUMBERS, measured * layout.heads * min(BLOCK, length) * length)
    numbers = min(block, measured * layout.heads * length * max(length, 3 * layout.head_dim))
    statistics = 4 * STATISTICS_COPIES * numbers
    return max(int(timeline.max()) + statistics, int(timeline[-1]) + logits)


def _logits_bytes(patient: Patient, predicted: int) -> int:
    """Bytes of the logits that the loss holds at a time, fp32."""
    head = patient.model.get_output_embeddings()
    row = 4 * len(head.get_parameter("weight"))
    return min(predicted * row, max(row, CHUNK_BYTES))


def _tokens(patient: Patient, batch: int, length: int) -> Tensor:
    return torch.ones(batch, length, dtype=torch.long, device=patient.model.device)
