"""What the training loop can train: a patient's slices, or what they are compared with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.heads import HeadId
from headsurgeon.operation.patient import WeightChange
from headsurgeon.operation.slice_maps import HeadTensors
from headsurgeon.operation.slices import SliceMap
from headsurgeon.planning import Plan


@runtime_checkable
class Learner(Protocol):
    """A model of which something can be trained, kept, and taken back bit for bit.

    Attributes:
        file_name: what `save` is asked to write in a run's folder.
        model: the model, which computes with what is being trained.
        layout: where its heads live.
        plan: the heads that evaluations report on, and the thresholds they are judged by.
        frozen_key_values: operated heads whose keys and values stay frozen.
        step: the step of a training run that its values were last taken from; None before any.
    """

    file_name: ClassVar[str]
    model: PreTrainedModel
    layout: Layout
    plan: Plan
    frozen_key_values: tuple[HeadId, ...]
    step: int | None

    @property
    def calibration_tokens(self) -> int:
        """Tokens that its start looked at, which count against a budget of training tokens."""
        ...

    def trainable(self) -> dict[str, nn.Parameter]:
        """What is trained, by name, and nothing else."""
        ...

    def outputs(self) -> set[str]:
        """Names of those that hold output projections' weights, or columns of them, alone."""
        ...

    def head_slices(self) -> dict[str, SliceMap]:
        """Which part of what is trained is operated heads', by name, where not all of it is."""
        ...

    def head_tensors(self, values: Mapping[str, Tensor] | None = None) -> list[HeadTensors]:
        """Views of each head's own matrices among them, or among `values` of the same shapes."""
        ...

    def identity(self) -> dict[str, Any]:
        """What decides where training starts, besides the model's weights."""
        ...

    def stock_state(self) -> Iterator[tuple[str, Tensor]]:
        """The model's `state_dict()` as it was before, one tensor at a time, by name."""
        ...

    def untouched_values(self) -> dict[str, Tensor]:
        """What `trainable` would have to hold for the model to compute as it did before."""
        ...

    def require_open(self) -> None:
        """Raises `StateError` unless it can be trained now."""
        ...

    def merge(self) -> WeightChange:
        """Makes `model` an ordinary model with what was trained."""
        ...

    def revert(self) -> WeightChange:
        """Makes `model` the stock model again, bit for bit."""
        ...

    def reopen(self) -> WeightChange:
        """Makes it trainable again."""
        ...

    def save(self, path: Path | str, dtype: torch.dtype = torch.float32) -> Path:
        """Writes what was trained, rounded to `dtype`, whatever the state."""
        ...
