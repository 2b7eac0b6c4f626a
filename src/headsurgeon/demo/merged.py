"""The repaired model as a plain checkpoint, and the proof that it loads as one."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import Windows
from headsurgeon.errors import OperationError
from headsurgeon.evaluation import evaluate
from headsurgeon.operation import Patient
from headsurgeon.operation.merged_checkpoint import write_checkpoint

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
    patient: Patient,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    patch: Path,
    windows: Windows,
    nll: float,
) -> MergedCheckpoint:
    """Writes a merged patient to `folder`, all or nothing, loads it back and compares the loss.

    Args:
        patch: file the slices come from.
        windows: what `nll` was measured on.

    Raises:
        OutputError: the folder holds something else.
        WriteError: the folder cannot be written; an earlier checkpoint in it stays.
        OperationError: the checkpoint that was read back has another loss.
    """
    write_checkpoint(patient, tokenizer, folder, patch)
    reloaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=patient.model.dtype, device_map=patient.model.device
    )
    found = evaluate(reloaded, windows).nll
    if not abs(found - nll) <= TOLERANCE:
        raise OperationError(
            f"{folder} loads with a loss of {found:.6f} where the merged model had {nll:.6f}; "
            "the checkpoint is not what was evaluated"
        )
    return MergedCheckpoint(folder, nll, found)
