"""The repaired model as a plain checkpoint, and the proof that it loads as one."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import Windows
from headsurgeon.errors import OperationError, WriteError
from headsurgeon.evaluate import evaluate

# fp32 on the same machine gives the same sums; half precision on disk would not
TOLERANCE = 1e-6


@dataclass(frozen=True)
class MergedCheckpoint:
    """A checkpoint that was written and read back.

    Attributes:
        folder: where it is.
        nll: loss of the merged model in memory, nats per token.
        reloaded_nll: loss of what `from_pretrained` made of the folder, on the same windows.
    """

    folder: Path
    nll: float
    reloaded_nll: float


def write_merged(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    windows: Windows,
    nll: float,
) -> MergedCheckpoint:
    """Writes a merged model to `folder`, all or nothing, loads it back and compares the loss.

    Args:
        windows: what `nll` was measured on.

    Raises:
        WriteError: the folder cannot be written.
        OperationError: the checkpoint that was read back has another loss.
    """
    unfinished: Path | None = None
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        # made by mkdtemp for its owner alone; the result follows the folder it is in
        unfinished.chmod(folder.parent.stat().st_mode & 0o777)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {folder}: {reason}; free some space and try again"
        ) from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
    reloaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=model.dtype, device_map=model.device
    )
    found = evaluate(reloaded, windows).nll
    if not abs(found - nll) <= TOLERANCE:
        raise OperationError(
            f"{folder} loads with a loss of {found:.6f} where the merged model had {nll:.6f}; "
            "the checkpoint is not what was evaluated"
        )
    return MergedCheckpoint(folder, nll, found)
