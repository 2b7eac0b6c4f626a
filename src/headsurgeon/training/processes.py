"""One run on several devices: every process takes its share of each step's windows.

Started by `torchrun` or `accelerate launch`, each process holds the whole model. What is trained
has its gradient averaged over them, so that all take the same step, and a run is the same whatever
the number of processes, up to rounding and to dropout. The first process alone evaluates, reads and
writes; the others are told what came of it.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, reduce
from jaxtyping import Int
from torch import Tensor, nn

from headsurgeon.errors import HeadsurgeonError, SettingsError, StateError
from headsurgeon.training.settings import TrainSettings

Result = TypeVar("Result")


class Processes:
    """The processes of one run, and this one's place among them.

    Attributes:
        accelerator: Accelerate's, which has set up how they talk.
        count: how many there are.
        rank: of this one, from 0.

    Raises:
        SettingsError: the windows of a step cannot be shared out evenly.
        StateError: the model is on another kind of device than the processes talk through.
    """

    def __init__(self, settings: TrainSettings, device: torch.device) -> None:
        # where the model is, is its own affair; `cpu=True` binds the whole process, but without it
        # Accelerate takes several processes on CPUs for as many runs
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.accelerator = Accelerator(device_placement=False, cpu=several and device.type == "cpu")
        self.count: int = self.accelerator.num_processes
        self.rank: int = self.accelerator.process_index
        if settings.windows_per_step % self.count:
            raise SettingsError(
                f"a step reads {settings.windows_per_step} windows (batch_size × accumulation), "
                f"which {self.count} processes cannot share evenly; choose a multiple of "
                f"{self.count}"
            )
        if self.count > 1 and device.type != self.accelerator.device.type:
            raise StateError(
                f"the model is on {device}, but the {self.count} processes talk through "
                f"{self.accelerator.device.type}; load it with dtype and device of this process, "
                f"{self.accelerator.device}"
            )

    @property
    def first(self) -> bool:
        """Whether this is the one that evaluates, reads and writes."""
        return self.rank == 0

    def share(self, windows: Int[Tensor, "window length"]) -> Int[Tensor, "share length"]:
        """This process's windows of a step."""
        return windows[self.rank :: self.count]

    def average(self, tensors: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over all processes, whose shares are equal."""
        if self.count == 1:
            return
        for tensor in tensors:
            gradient = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
            tensor.grad = reduce(gradient, "mean")

    def means(self, values: dict[str, float]) -> dict[str, float]:
        """The mean over all processes of each number."""
        if self.count == 1:
            return values
        device = self.accelerator.device
        kept = torch.float32 if device.type == "mps" else torch.float64
        numbers = torch.tensor(list(values.values()), dtype=kept, device=device)
        return dict(zip(values, reduce(numbers, "mean").tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is set in any process."""
        return self.means({"flag": float(flag)})["flag"] > 0

    def by_first(self, work: Callable[[], Result]) -> Result:
        """What `work` gives in the first process, where alone it is done.

        Raises:
            HeadsurgeonError: the one that it raised there, in every process.
        """
        if self.count == 1:
            return work()
        outcome: list[Any] = [None]
        if self.first:
            try:
                outcome = [work()]
            except HeadsurgeonError as error:
                outcome = [error]
        broadcast_object_list(outcome, from_process=0)
        if isinstance(outcome[0], HeadsurgeonError):
            raise outcome[0]
        result: Result = outcome[0]
        return result
