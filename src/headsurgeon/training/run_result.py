"""The result of a training run; `run.json` in the run's folder holds it."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from headsurgeon.arguments import checked
from headsurgeon.errors import InputError, OutputError
from headsurgeon.records import Finite
from headsurgeon.results import Result, ShownInNotebooks
from headsurgeon.training.run_file import LOG_NAME, RUN_NAME, read_run_file

Count = Annotated[int, Field(ge=0)]
Place = Annotated[Path, BeforeValidator(lambda value: Path(value) if type(value) is str else value)]
# what runs wrote that did not say so yet, by what they trained
_SAVED = {"full": "weights.safetensors", "lora": "adapter_model.safetensors"}


class Run(ShownInNotebooks, Result):
    """A training run that used up its budget, and where its files are.

    Attributes:
        folder: the run's folder: `run.json`, `log.jsonl`, `checkpoint/`, `patch.safetensors`.
        steps: optimiser steps of the whole run.
        tokens: tokens read in them.
        best_step: the step with the lowest loss on dev text.
        best_dev_loss: loss on dev text at that step, nats per token.
        patch: path of the patch; of what was trained instead, where that is no patient.
        kept_step: the step whose values the learner and the patch hold, as `keep` says.
        kept_dev_loss: loss on dev text at that step, nats per token.
        snapshots: paths of the patches kept on the way, by step.
        anchor_tokens: tokens of the anchor text read besides; not among `tokens`.
    """

    kind: ClassVar[str] = "run_result"
    remedy: ClassVar[str] = "load the run's folder instead"

    folder: Place
    steps: Count
    tokens: Count
    best_step: Count
    best_dev_loss: Finite
    patch: Place
    kept_step: Count
    kept_dev_loss: Finite
    snapshots: tuple[Place, ...] = ()
    anchor_tokens: Count = 0

    @property
    def log(self) -> Path:
        """Path of the log."""
        return self.folder / LOG_NAME

    def figures(self) -> dict[str, Any]:
        """Plain data, with snapshots as they are named within the folder."""
        names = tuple(path.relative_to(self.folder).as_posix() for path in self.snapshots)
        return self.model_dump(exclude={"folder", "patch"}) | {"snapshots": names}

    @classmethod
    @checked
    def load(cls, path: Path | str) -> "Run":
        """The run in a folder, as it ended, or the file that `save` wrote.

        Raises:
            InputError: as `Result.load`; no run lies there, or it has not finished.
            OutputError: its `run.json` was altered.
        """
        folder = Path(path)
        return _of_folder(folder) if folder.is_dir() else super().load(path)


def _of_folder(folder: Path) -> Run:
    content = read_run_file(folder)
    ended = content.result
    if ended is None:
        raise InputError(
            f"{folder}: the run has not finished; the command that started it resumes it"
        )
    # early runs always kept their best step, and did not name what they wrote
    early: dict[str, Any] = {
        "patch": _SAVED.get(str(content.identity.get("trains")), "patch.safetensors"),
        "kept_step": ended.get("best_step"),
        "kept_dev_loss": ended.get("best_dev_loss"),
    }
    known = {name: value for name, value in (early | ended).items() if name in Run.model_fields}
    try:
        run = Run(folder=folder, **known)
    except InputError as error:
        raise OutputError(
            f"{folder / RUN_NAME}: {error}; the file was altered since the run wrote it: train "
            "again in another folder"
        ) from error
    snapshots = tuple(folder / path for path in run.snapshots)
    return run.replace(patch=folder / run.patch, snapshots=snapshots)
