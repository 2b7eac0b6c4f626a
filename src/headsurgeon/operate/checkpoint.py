"""A merged patient as an ordinary checkpoint folder: all of it is written, or nothing."""

import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from headsurgeon.errors import ModelError, OutputError, WriteError
from headsurgeon.files import header, write_json
from headsurgeon.folders import claim_folder
from headsurgeon.operate.as_stored import write_as_stored
from headsurgeon.operate.beside import (
    MARKER,
    base_folder,
    copy_beside,
    has_tokenizer,
    name_readable_class,
)
from headsurgeon.operate.own_files import check_own, manifest
from headsurgeon.operate.patient import Patient

KIND = "merged-checkpoint"


def check_output(folder: Path) -> None:
    """Refuses a folder that a checkpoint cannot be written to; changes nothing.

    Raises:
        OutputError: it holds something else than a checkpoint written here, or files that were
            added or changed since.
    """
    if folder.exists():
        claim_folder(folder, MARKER)
        check_own(folder, MARKER, KIND)


def write_checkpoint(
    patient: Patient,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    patch: Path,
    as_stored: bool = False,
) -> None:
    """Writes the merged model of `patient`, for `from_pretrained`, with all that lay beside it.

    Args:
        patient: merged.
        tokenizer: the model's; written unless the model's own folder has one, which is copied.
        folder: new, empty, or a checkpoint written here before, which is replaced at the end.
        patch: file the slices come from, recorded beside the weights.
        as_stored: whether to copy the base's files and change nothing in them but the slices;
            otherwise the model is written in the precision it has.

    Raises:
        OutputError: the folder holds something else, or is the model's own.
        ModelError, PatchError: values that the precision does not have; see `write_as_stored`.
        WriteError: the disk is full or the folder cannot be written; what was there stays.
    """
    # a link to a folder stays one
    folder = Path(os.path.realpath(folder))
    check_output(folder)
    source = base_folder(patient.model)
    if source is not None and folder == Path(os.path.realpath(source)):
        raise OutputError(f"{folder} is the model's own folder; choose another for the output")
    unfinished: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        if source is not None:
            copy_beside(source, unfinished)
        if source is not None and as_stored:
            write_as_stored(patient, source, unfinished)
        else:
            _check_finite(patient)
            patient.model.save_pretrained(unfinished)
        if source is None or not has_tokenizer(unfinished):
            tokenizer.save_pretrained(unfinished)
        name_readable_class(unfinished)
        _settle(unfinished)
        write_json(unfinished / MARKER, _origin(patient, patch) | {"files": manifest(unfinished)})
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


def _origin(patient: Patient, patch: Path) -> dict[str, object]:
    return {
        **header(KIND),
        "model": patient.plan.model,
        "fingerprint": patient.base_fingerprint,
        "checked": patient.checked,
        "patch": str(patch),
        "heads": [str(head) for head in patient.heads],
        "init": patient.init,
        "output_start": patient.output_start,
        "seed": patient.seed,
    }


def _check_finite(patient: Patient) -> None:
    for name, parameter in patient.model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise ModelError(
                f"{name} holds NaN or infinity in {dtype}; it may hold values beyond what {dtype} "
                "has, so choose another precision"
            )


def _settle(folder: Path) -> None:
    """Gives folder and files the modes that the umask asks for, and flushes them to the disk."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o777 & ~mask)
            continue
        path.chmod(0o666 & ~mask)
        with path.open("rb") as opened:
            os.fsync(opened.fileno())


def _take_place(finished: Path, folder: Path) -> None:
    if not folder.exists():
        finished.rename(folder)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    kept = previous / "checkpoint"
    folder.rename(kept)
    try:
        # once more, since somebody may have put a file there while the weights were written
        check_output(kept)
        finished.rename(folder)
    except BaseException:
        kept.rename(folder)
        raise
    finally:
        shutil.rmtree(previous, ignore_errors=True)
