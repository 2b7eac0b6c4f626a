"""Snapshots: patches of a run at named steps, such as `RUN/snapshots/step-000040.safetensors`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from headsurgeon.errors import OutputError, SettingsError
from headsurgeon.operation.learner import Learner
from headsurgeon.training.schedule import named_steps
from headsurgeon.training.settings import TrainSettings

SNAPSHOTS = "snapshots"
# more is refused before the run starts: a folder must not grow without anyone having meant it
MOST_SNAPSHOTS = 256
MOST_BYTES = 32 * 2**30
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Snapshots:
    """Which steps of a run are kept, and where.

    Attributes:
        folder: where they lie; there is none until the first is written.
        steps: ascending.
        dtype: of the values.
    """

    folder: Path
    steps: tuple[int, ...]
    dtype: torch.dtype

    def path(self, step: int) -> Path:
        """Where the snapshot of a step lies."""
        return self.folder / f"step-{step:06d}.safetensors"

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files of a run that has come to its end."""
        return tuple(self.path(step) for step in self.steps)

    def keep(self, learner: Learner, step: int) -> None:
        """Writes what is trained if its step is one to be kept and is not there yet.

        Raises:
            PatchError: slices that are not finite.
            WriteError: the disk is full.
        """
        if step in self.steps and not self.path(step).exists():
            learner.step = step
            learner.save(self.path(step), self.dtype)

    def cut_back(self, step: int) -> None:
        """Drops what lies beyond a checkpoint, since it is going to be computed again.

        Raises:
            OutputError: one from before the checkpoint is gone.
        """
        for later in self.steps:
            if later > step:
                self.path(later).unlink(missing_ok=True)
        # that of the checkpoint's own step can be written once more
        gone = [self.path(early) for early in self.steps if early < step]
        gone = [path for path in gone if not path.is_file()]
        if gone:
            raise OutputError(
                f"{gone[0]} is not there, though the run has been past its step: it was removed; "
                "put it back, or start over in another folder"
            )


def snapshots_of(
    folder: Path, settings: TrainSettings, windows: int, end: int, parameters: int
) -> Snapshots:
    """The snapshots of a run, checked before it starts.

    Args:
        folder: of the run.
        settings: `snapshots` and `snapshot_dtype` count.
        windows: of the training text.
        end: last step of the run.
        parameters: values in all slices.

    Raises:
        SettingsError: a step beyond the end; more than 256 snapshots, or more than 32 GiB.
    """
    steps = named_steps("snapshots", settings, windows, end)
    size = snapshot_bytes(settings, len(steps), parameters)
    if len(steps) > MOST_SNAPSHOTS or size > MOST_BYTES:
        raise SettingsError(
            f"snapshots: {len(steps)} of {parameters:,} values in {settings.snapshot_dtype} take "
            f"{size / 2**30:,.1f} GiB; at most {MOST_SNAPSHOTS} and {MOST_BYTES / 2**30:g} GiB are "
            "kept: name fewer steps, or choose bf16"
        )
    return Snapshots(folder / SNAPSHOTS, steps, _DTYPES[settings.snapshot_dtype])


def snapshot_bytes(settings: TrainSettings, count: int, parameters: int) -> int:
    """Size of that many snapshots of that many values each, headers aside."""
    return count * parameters * _DTYPES[settings.snapshot_dtype].itemsize
