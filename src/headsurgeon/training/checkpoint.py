"""What a run resumes from: slices and optimiser moments in one safetensors file, atomically."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from headsurgeon.errors import OutputError
from headsurgeon.files import parse_json
from headsurgeon.operation.tensor_file import read_tensors, write_tensors
from headsurgeon.training.optimiser import Optimiser

LAST = "last.safetensors"
_KIND = "checkpoint"
_ADVICE = "the checkpoint was altered since the run wrote it: start over in another folder"


class Progress(BaseModel):
    """How far a run is.

    Attributes:
        step: steps completed.
        evaluated: the last step that was evaluated; −1 before the first evaluation.
        best_step, best_loss: the evaluation with the lowest loss on dev text so far.
        dev_loss, healthy: what the last evaluation found.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    step: int = Field(default=0, ge=0)
    evaluated: int = Field(default=-1, ge=-1)
    best_step: int = Field(default=-1, ge=-1)
    best_loss: float | None = None
    dev_loss: float | None = None
    healthy: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> "Progress":
        if not self.best_step <= self.evaluated <= self.step:
            raise ValueError(
                f"best step {self.best_step}, evaluated {self.evaluated}, step {self.step} are out "
                "of order"
            )
        losses = (self.best_loss is not None, self.dev_loss is not None)
        if losses != (self.best_step >= 0, self.evaluated >= 0):
            raise ValueError("an evaluation and its loss belong together")
        return self


def save_checkpoint(
    folder: Path,
    slices: dict[str, nn.Parameter],
    optimiser: Optimiser,
    progress: Progress,
    kept: int,
    keep: str | int = "best",
) -> None:
    """Writes what a run needs to resume, and beside it the slices of `kept`, when that step comes.

    Their file carries the step in its name and is written first: whatever moment a run is killed
    at, the checkpoint never names a file that is not there.

    Args:
        kept: the step that the run would end with as things stand.
        keep: the setting that chose it.

    Raises:
        WriteError: the previous checkpoint is untouched.
    """
    tensors = {f"slice/{name}": _kept(slice_) for name, slice_ in slices.items()}
    ending = folder / kept_name(keep, kept)
    if kept == progress.step and not ending.exists():
        write_tensors(ending, _KIND, tensors, {"progress": _text(progress)})
    tensors |= {name: _kept(value) for name, value in optimiser.state().items()}
    write_tensors(folder / LAST, _KIND, tensors, {"progress": _text(progress)})
    for other in folder.glob("best-*.safetensors"):
        if other != ending:
            other.unlink()


def load_checkpoint(
    folder: Path, slices: dict[str, nn.Parameter], optimiser: Optimiser, steps: int
) -> Progress:
    """Puts slices and moments back where the last checkpoint left them.

    Raises:
        OutputError: the checkpoint is damaged, or its progress lies beyond the end of the run.
            Nothing was put in place.
    """
    path = folder / LAST
    tensors, metadata = read_tensors(path, _KIND, OutputError)
    progress = _progress(metadata, steps, path)
    _check_slices(slices, tensors, path)
    _check_moments(optimiser, tensors, progress, path)
    _put(slices, tensors)
    if progress.step > 0:
        optimiser.restore(tensors)
    return progress


def load_kept(folder: Path, slices: dict[str, nn.Parameter], kept: int, keep: str | int) -> None:
    """Puts the slices that the run ends with in place.

    Raises:
        OutputError: their file is missing or damaged.
    """
    path = folder / kept_name(keep, kept)
    tensors, _ = read_tensors(path, _KIND, OutputError)
    _check_slices(slices, tensors, path)
    _put(slices, tensors)


def kept_name(keep: str | int, step: int) -> str:
    """Name of the file with the slices that a run ends with, chosen as `keep` says."""
    return f"{'best' if keep == 'best' else 'kept'}-{step:06d}.safetensors"


def _progress(metadata: dict[str, str], steps: int, path: Path) -> Progress:
    try:
        progress = Progress.model_validate(parse_json(metadata.get("progress", "")))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(("progress", *map(str, fault["loc"])))
        raise OutputError(f"{path}: {place}: {fault['msg']}; {_ADVICE}") from error
    except ValueError as error:
        raise OutputError(f"{path}: progress is no JSON ({error}); {_ADVICE}") from error
    if progress.step > steps:
        raise OutputError(
            f"{path}: step {progress.step} lies beyond the end of the run, {steps}; {_ADVICE}"
        )
    return progress


def _check_slices(slices: dict[str, nn.Parameter], tensors: dict[str, Tensor], path: Path) -> None:
    stored = {name for name in tensors if name.startswith("slice/")}
    if stored != {f"slice/{name}" for name in slices}:
        raise OutputError(f"{path} holds other slices than are trained here; choose another folder")
    for name, slice_ in slices.items():
        _check_tensor(f"slice/{name}", tensors, slice_.shape, slice_.dtype, path)


def _check_moments(
    optimiser: Optimiser, tensors: dict[str, Tensor], progress: Progress, path: Path
) -> None:
    """After the first step every part has its moments, counted as often as the run has stepped."""
    if progress.step == 0:
        return
    for name, part in optimiser.parts.items():
        for moment in optimiser.moments(name):
            counts = moment == "step"
            shape, dtype = (torch.Size(), torch.float32) if counts else (part.shape, part.dtype)
            tensor = _check_tensor(f"{moment}/{name}", tensors, shape, dtype, path)
            if counts and float(tensor) != progress.step:
                raise OutputError(
                    f"{path}: step/{name} is {float(tensor):g}, the run is at step "
                    f"{progress.step}; {_ADVICE}"
                )
            if moment == "exp_avg_sq" and bool((tensor < 0).any()):
                raise OutputError(f"{path}: exp_avg_sq/{name} has values below 0; {_ADVICE}")


def _check_tensor(
    name: str, tensors: dict[str, Tensor], shape: torch.Size, dtype: torch.dtype, path: Path
) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise OutputError(f"{path} has no {name}; {_ADVICE}")
    if tensor.shape != shape or tensor.dtype != dtype:
        raise OutputError(
            f"{path}: expected {name} as {dtype} {list(shape)}, found {tensor.dtype} "
            f"{list(tensor.shape)}; {_ADVICE}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise OutputError(f"{path}: {name} holds NaN or infinity; {_ADVICE}")
    return tensor


def _put(slices: dict[str, nn.Parameter], tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, slice_ in slices.items():
            slice_.copy_(tensors[f"slice/{name}"])


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _text(progress: Progress) -> str:
    return progress.model_dump_json()
