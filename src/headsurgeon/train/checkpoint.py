"""Checkpoints: slices and AdamW's moments in one safetensors file, replaced atomically."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from headsurgeon.errors import OutputError
from headsurgeon.operate.tensor_file import read_tensors, write_tensors

LAST = "last.safetensors"
_KIND = "checkpoint"
# AdamW's own names: first moment, second moment, number of updates
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: steps completed.
        evaluated: the last step that was evaluated; −1 before the first evaluation.
        best_step, best_loss: the evaluation with the lowest loss on dev text so far.
        dev_loss, healthy: what the last evaluation found.
    """

    step: int = 0
    evaluated: int = -1
    best_step: int = -1
    best_loss: float | None = None
    dev_loss: float | None = None
    healthy: int | None = None


def save_checkpoint(
    folder: Path,
    slices: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Writes what a run needs to go on; keeps the slices of the best evaluation beside it.

    The file of the best slices carries its step in its name and is written first: whatever moment
    a run is killed at, the checkpoint never names a file that is not there.

    Raises:
        WriteError: the previous checkpoint is untouched.
    """
    tensors = {f"slice/{name}": _kept(slice_) for name, slice_ in slices.items()}
    best = folder / best_name(progress)
    if progress.best_step == progress.step and not best.exists():
        write_tensors(best, _KIND, tensors, {"progress": _text(progress)})
    for name, slice_ in slices.items():
        for moment, value in optimizer.state[slice_].items():
            tensors[f"{moment}/{name}"] = _kept(value)
    write_tensors(folder / LAST, _KIND, tensors, {"progress": _text(progress)})
    for other in folder.glob("best-*.safetensors"):
        if other != best:
            other.unlink()


def load_checkpoint(
    folder: Path, slices: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> Progress:
    """Puts slices and moments back where the last checkpoint left them.

    Raises:
        OutputError: the checkpoint is damaged.
    """
    tensors, metadata = read_tensors(folder / LAST, _KIND, OutputError)
    _load_slices(slices, tensors, folder / LAST)
    for name, slice_ in slices.items():
        if f"step/{name}" in tensors:
            optimizer.state[slice_] = {
                moment: _placed(moment, tensors[f"{moment}/{name}"], slice_) for moment in _MOMENTS
            }
    return Progress(**json.loads(metadata["progress"]))


def load_best(folder: Path, slices: dict[str, nn.Parameter], progress: Progress) -> None:
    """Puts the slices of the best evaluation in place.

    Raises:
        OutputError: their file is missing or damaged.
    """
    path = folder / best_name(progress)
    tensors, _ = read_tensors(path, _KIND, OutputError)
    _load_slices(slices, tensors, path)


def best_name(progress: Progress) -> str:
    """Name of the file with the best slices."""
    return f"best-{progress.best_step:06d}.safetensors"


def _load_slices(slices: dict[str, nn.Parameter], tensors: dict[str, Tensor], path: Path) -> None:
    found = {name for name in tensors if name.startswith("slice/")}
    if found != {f"slice/{name}" for name in slices}:
        raise OutputError(f"{path} holds other slices than this patient's; choose another folder")
    with torch.no_grad():
        for name, slice_ in slices.items():
            slice_.copy_(tensors[f"slice/{name}"])


def _placed(moment: str, value: Tensor, slice_: nn.Parameter) -> Tensor:
    # AdamW keeps its counter on the CPU, also for parameters that are elsewhere
    return value if moment == "step" else value.to(slice_.device)


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _text(progress: Progress) -> str:
    return json.dumps(asdict(progress))
