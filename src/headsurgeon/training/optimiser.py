"""What changes the slices in a step: AdamW, or Muon on each head's matrices and AdamW on the rest.

A slice holds the rows or columns of many heads, and of BLOOM's heads queries, keys and values in
turn; Muon's update is that of one matrix. So it is given views of the slices, one for each head and
part, and each is orthogonalised on its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headsurgeon.errors import SettingsError
from headsurgeon.operation.learner import Learner
from headsurgeon.training.settings import TrainSettings

# what each keeps of a parameter, under torch's own names
_MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("exp_avg", "exp_avg_sq", "step"),
    torch.optim.Muon: ("momentum_buffer",),
}


def check_optimiser(learner: Learner, settings: TrainSettings) -> None:
    """Refuses settings that what is trained has no use for.

    Raises:
        SettingsError: muon or a rate for output columns where there are no matrices of heads; a
            rate for heads where nothing else is trained, or no heads are, or with bf16 masters;
            fp32 masters of parameters that are narrower themselves, or bf16 masters of fp16 ones.
    """
    what = type(learner).__name__
    if settings.optimizer == "muon" and not learner.head_tensors():
        raise SettingsError(
            f"optimizer is muon, which moves the matrices of single heads, and {what} trains none; "
            "choose adamw"
        )
    if settings.output_rate != 1.0 and not learner.outputs():
        raise SettingsError(
            f"output_rate is {settings.output_rate:g}, but {what} trains no output columns by "
            "themselves; leave it at 1"
        )
    if settings.heads_rate != 1.0 and not learner.head_slices():
        raise SettingsError(
            f"heads_rate is {settings.heads_rate:g}, but {what} does not train the heads among "
            "other weights; leave it at 1"
        )
    if settings.heads_rate != 1.0 and settings.masters != "fp32":
        raise SettingsError(
            f"heads_rate is {settings.heads_rate:g} and masters is {settings.masters}: what "
            "rounding took from a step no multiple brings back; choose masters fp32"
        )
    allowed = {torch.float32} | ({torch.bfloat16} if settings.masters == "bf16" else set())
    for name, tensor in learner.trainable().items():
        if tensor.dtype not in allowed:
            raise SettingsError(
                f"masters is {settings.masters}, but {name} is itself trained as {tensor.dtype}; "
                "load the model in fp32 (with compute bf16 its products are in bf16 all the same)"
                + (", or choose masters bf16" if tensor.dtype == torch.bfloat16 else "")
            )


def moment_bytes(learner: Learner, settings: TrainSettings) -> int:
    """Bytes of what is kept of earlier gradients, in the precision of the masters.

    Raises:
        SettingsError: as `check_optimiser`.
    """
    check_optimiser(learner, settings)
    optimiser = Optimiser(learner, settings)
    numbers = sum(
        part.numel() * sum(moment != "step" for moment in optimiser.moments(name))
        for name, part in optimiser.parts.items()
    )
    return numbers * settings.master_bytes


class Optimiser:
    """Steps of one run; the slices must stay where they are in memory.

    Attributes:
        parts: what is updated as one, by name: a slice under the name of its parameter, or one
            head's matrix under a name such as `L5H14.query`.
    """

    def __init__(self, learner: Learner, settings: TrainSettings) -> None:
        self._learner = learner
        self._slices = learner.trainable()
        self._by_head = settings.optimizer == "muon"
        # of what has heads' matrices, everything with two axes is made of them
        undivided = {
            name: slice_
            for name, slice_ in self._slices.items()
            if not (self._by_head and slice_.ndim == 2)
        }
        matrices = {
            name: nn.Parameter(view)
            for name, view in (self._matrices(self._slices) if self._by_head else ())
        }
        outputs = {name for name in matrices if name.endswith(".output")} | learner.outputs()
        self.parts = {**undivided, **matrices}
        self._optimizers: list[torch.optim.Optimizer] = []
        if undivided:
            self._optimizers.append(
                torch.optim.AdamW(
                    _groups(undivided, outputs, settings.output_rate),
                    lr=settings.learning_rate,
                    betas=(settings.beta1, settings.beta2),
                    weight_decay=settings.weight_decay,
                )
            )
        if matrices:
            self._optimizers.append(
                torch.optim.Muon(
                    _groups(matrices, outputs, settings.output_rate),
                    lr=settings.learning_rate,
                    momentum=settings.momentum,
                    weight_decay=settings.weight_decay,
                    # an update as large as AdamW's, so that one rate suits both (arXiv:2502.16982)
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        self._heads = learner.head_slices() if settings.heads_rate != 1.0 else {}
        self._heads_rate = settings.heads_rate
        self._of = {
            part: optimizer
            for optimizer in self._optimizers
            for group in optimizer.param_groups
            for part in group["params"]
        }

    def step(self, rate: float) -> None:
        """Updates every part by its gradient; output columns and heads at their multiple of `rate`.

        AdamW's step, decay included, is proportional to the rate, so what heads are to be moved by
        is a multiple of what they were moved by.
        """
        if self._by_head:
            gradients = {
                name: slice_.grad
                for name, slice_ in self._slices.items()
                if slice_.grad is not None
            }
            for name, gradient in self._matrices(gradients):
                self.parts[name].grad = gradient
        for part in self.parts.values():
            if part.grad is None:
                # such as an expert that no token was sent to
                part.grad = torch.zeros_like(part)
        before = {name: of.read(self.parts[name].detach()) for name, of in self._heads.items()}
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["factor"]
            optimizer.step()
        with torch.no_grad():
            for name, of in self._heads.items():
                after = of.read(self.parts[name])
                of.write(self.parts[name], before[name].lerp(after, self._heads_rate))

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for tensor in (*self._slices.values(), *self.parts.values()):
            tensor.grad = None

    def moments(self, name: str) -> tuple[str, ...]:
        """What is kept of one part from the first step on."""
        return _MOMENTS[type(self._of[self.parts[name]])]

    def state(self) -> dict[str, Tensor]:
        """All that is kept, named `moment/part`; empty before the first step."""
        return {
            f"{moment}/{name}": value
            for name, part in self.parts.items()
            for moment, value in self._of[part].state[part].items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave; `tensors` may hold more."""
        for name, part in self.parts.items():
            self._of[part].state[part] = {
                moment: _placed(moment, tensors[f"{moment}/{name}"], part)
                for moment in self.moments(name)
            }

    def _matrices(self, values: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for head in self._learner.head_tensors(values):
            for part, view in head.weights.items():
                yield f"{head.id}.{part}", view


def _groups(
    named: Mapping[str, nn.Parameter], outputs: set[str], factor: float
) -> list[dict[str, Any]]:
    groups: dict[bool, list[nn.Parameter]] = {}
    for name, part in named.items():
        groups.setdefault(name in outputs, []).append(part)
    return [
        {"params": parts, "factor": factor if output else 1.0} for output, parts in groups.items()
    ]


def _placed(moment: str, value: Tensor, part: nn.Parameter) -> Tensor:
    # AdamW keeps its counter on the CPU, also for parameters that are elsewhere; strides decide
    # how products round, so they are those that the optimizer would have chosen
    return value if moment == "step" else torch.zeros_like(part).copy_(value)
