"""A merged patient as an ordinary checkpoint folder: all of it is written, or nothing."""

import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from headsurgeon.errors import WriteError
from headsurgeon.files import header, write_json
from headsurgeon.folders import claim_folder
from headsurgeon.operate.patient import Patient

# says where the checkpoint comes from, and that its folder may be replaced
MARKER = "headsurgeon.json"


def write_checkpoint(
    patient: Patient, tokenizer: PreTrainedTokenizerBase, folder: Path, patch: Path
) -> None:
    """Writes the merged model of `patient` and its tokenizer, for `from_pretrained`.

    Args:
        patient: merged; the model is written in the precision it has.
        folder: new, empty, or a checkpoint written here before, which is replaced at the end.
        patch: file the slices come from, recorded beside the weights.

    Raises:
        OutputError: the folder holds something else.
        WriteError: the disk is full or the folder cannot be written; what was there stays.
    """
    if folder.exists():
        claim_folder(folder, MARKER)
    origin = {
        **header("merged-checkpoint"),
        "model": patient.plan.model,
        "fingerprint": patient.base_fingerprint,
        "patch": str(patch),
        "heads": [str(head) for head in patient.heads],
        "init": patient.init,
        "output_start": patient.output_start,
        "seed": patient.seed,
    }
    unfinished: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        patient.model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        write_json(unfinished / MARKER, origin)
        _take_place(unfinished, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {folder}: {reason}; nothing was changed: free some space or choose "
            "another folder"
        ) from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


def _take_place(finished: Path, folder: Path) -> None:
    # a folder made by mkdtemp is private to its owner; the result follows the folder it is in
    finished.chmod(folder.parent.stat().st_mode & 0o777)
    if not folder.exists():
        finished.rename(folder)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(previous / "checkpoint")
    try:
        finished.rename(folder)
    except OSError:
        (previous / "checkpoint").rename(folder)
        raise
    finally:
        shutil.rmtree(previous, ignore_errors=True)
