"""How much memory a training run takes, found out before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headsurgeon.attention.choice import attending
from headsurgeon.data import Windows
from headsurgeon.models.forward import batches
from headsurgeon.operation import FullLearner, Learner, Patient
from headsurgeon.training.contexts import (
    Stop,
    computing,
    gradient_checkpointing,
    masters,
    own_randomness,
    training_mode,
)
from headsurgeon.training.dev_evaluation import evaluate_dev
from headsurgeon.training.live_memory import LiveMemory, live_memory, without_memory
from headsurgeon.training.loss_terms import Term, backward, terms_of
from headsurgeon.training.optimiser import Optimiser
from headsurgeon.training.settings import TrainSettings


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a run, bytes.

    Attributes:
        weights: the model's own parameters; part of neither of the others.
        training: highest point of a training step above the weights: slices, stock values,
            gradients, optimiser state, activations, logits.
        evaluation: highest point of an evaluation on dev text, head statistics included; slices,
            stock values and optimiser state are there as well.
    """

    weights: int
    training: int
    evaluation: int

    @property
    def peak(self) -> int:
        """Highest point of the run above the weights."""
        return max(self.training, self.evaluation)


def memory_plan(learner: Patient | FullLearner, settings: TrainSettings) -> MemoryPlan:
    """Estimates the memory of training `learner`: the run itself, on tensors without content.

    Two steps and an evaluation run at their real length, batch and precision on a copy that holds
    no memory; what is alive at a time is counted. It is the memory of tensors: what an allocator
    cannot reuse, and the scratch memory within an operation, such as a tile of scores, come on top.
    glibc keeps up to half as much again in pieces, unless `MALLOC_MMAP_THRESHOLD_` (bytes) is set
    in the environment. A run's checkpoint adds nothing: tensors are written from where they are.

    Args:
        learner: open; it and its model are left as they were.
        settings: of the run.

    Raises:
        StateError: the learner is merged or reverted.
        SettingsError: `attention` or `compute` do not suit the model.
        OperationError: an operation of the model whose sizes are not known without data.
    """
    learner.require_open()
    weights = sum(parameter.nbytes for parameter in learner.model.parameters())
    if isinstance(learner, Patient):
        slices = learner.named_slices()
        weights -= sum(slice_.nbytes for slice_ in slices.values())
        # `revert` needs what the model held before, in its own precision
        beside = sum(
            slice_.numel()
            * (settings.master_bytes + learner.model.get_parameter(name).element_size())
            for name, slice_ in slices.items()
        )
    else:
        # what is trained are the weights themselves
        beside = weights
    traced = without_memory(learner)
    model = traced.model
    for parameter in traced.trainable().values():
        parameter.grad = None
    with (
        masters(traced, settings),
        live_memory() as memory,
        training_mode(model),
        gradient_checkpointing(model, settings.gradient_checkpointing),
        own_randomness(model),
    ):
        optimiser = Optimiser(traced, settings)
        anchor = _windows(_tokens(traced, settings.anchor_windows, settings.length))
        terms = terms_of(traced, settings, anchor if settings.anchor > 0 else None)
        # the moments exist from the end of the first step on
        for _ in range(2):
            with attending(model, settings.attention, training=True):
                _step(traced, settings, optimiser, terms)
        training = memory.peak
        evaluation = _evaluation(traced, settings, memory)
    return MemoryPlan(weights, training=beside + training, evaluation=beside + evaluation)


def _step(
    learner: Learner, settings: TrainSettings, optimiser: Optimiser, terms: Sequence[Term]
) -> None:
    """What `Session` does in a step, less its bookkeeping."""
    # a third forward pass finds what the second one found
    count = settings.batch_size * min(settings.accumulation, 2)
    tokens = _tokens(learner, count, settings.length)
    backward(learner, settings, terms, 0, tokens, Tensor.backward, Stop())
    torch.nn.utils.clip_grad_norm_(learner.trainable().values(), settings.clip)
    optimiser.step(settings.learning_rate)
    optimiser.zero_grad()


def _evaluation(learner: Learner, settings: TrainSettings, memory: LiveMemory) -> int:
    """Highest point of an evaluation; of its batches, which are alike, one runs."""
    tokens = next(batches(_tokens(learner, settings.dev_windows, settings.length)))
    count = len(tokens)
    windows = _windows(tokens)
    memory.peak = memory.now
    evaluate_dev(
        learner,
        windows,
        min(settings.statistics_windows, count),
        computing(learner.model, settings),
        "stock" if settings.attention == "stock" else "auto",
    )
    return memory.peak


def _windows(tokens: Tensor) -> Windows:
    return Windows(
        tokens=tokens,
        documents=("",) * len(tokens),
        corpus="",
        split="dev",
        first_token="none",
        seed=0,
        corpus_hash="",
    )


def _tokens(learner: Learner, count: int, length: int) -> Tensor:
    """Windows of any token but padding, which measuring refuses."""
    padding = learner.model.config.get_text_config().pad_token_id
    return torch.full((count, length), 1 if padding == 0 else 0)
