"""A merged model as an ordinary checkpoint folder: all of it is written, or nothing."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from headsurgeon.errors import InputError, ModelError, OutputError, WriteError
from headsurgeon.files import check_header, header, read_object, write_json, write_text
from headsurgeon.folders import (
    MANIFEST,
    check_claimable,
    check_own,
    locked,
    manifest_of,
    read_manifest,
    replace_own,
    staging,
)
from headsurgeon.models.device import short_name
from headsurgeon.models.loaded_with import loaded_with
from headsurgeon.operation.files_beside_weights import (
    MARKER,
    base_folder,
    copy_beside,
    has_tokenizer,
    name_readable_class,
)
from headsurgeon.operation.full import FullLearner
from headsurgeon.operation.merged_as_stored import write_as_stored
from headsurgeon.operation.model_card import BASE_CARD, CARD, PLAN, Operated, Told, model_card
from headsurgeon.operation.patient import Patient

KIND = "merged_checkpoint"


def check_output(folder: Path) -> dict[str, str]:
    """Refuses a folder that a checkpoint cannot be written to; changes nothing.

    Returns:
        Names and hashes of the files of the checkpoint that is there; empty where there is none.

    Raises:
        OutputError: it holds something else than a checkpoint written here, or files that were
            added or changed since.
    """
    check_claimable(folder, MARKER)
    if not (folder / MARKER).is_file():
        return {}
    try:
        check_header(read_object(folder / MARKER), KIND, folder / MARKER)
    except InputError as error:
        raise OutputError(f"{error}; choose another folder") from error
    listed = read_manifest(folder, MARKER)
    if listed is None:
        raise OutputError(
            f"{folder}: {MARKER} does not list the files that were written with it, so there is no "
            "telling which are yours; choose another folder, or remove this one yourself"
        )
    check_own(folder, listed, ignoring=[MARKER])
    return listed


def write_checkpoint(
    patient: Patient | FullLearner,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    patches: Sequence[Path],
    as_stored: bool = False,
    told: Told | None = None,
) -> None:
    """Writes the merged model of `patient`, for `from_pretrained`, with all that lay beside it.

    Args:
        patient: merged.
        tokenizer: the model's; written unless the model's own folder has one, which is copied.
        folder: new, empty, or a checkpoint written here before, which is replaced at the end.
        patches: files that what was trained comes from, recorded beside the weights.
        as_stored: whether to copy the base's files and change nothing in them but what was trained;
            otherwise the model is written in the precision it has.
        told: what the card says of training and figures.

    Raises:
        OutputError: the folder holds something else, or is the model's own.
        ModelError, PatchError: values that the precision does not have; see `write_as_stored`.
        WriteError: the disk is full or the folder cannot be written; what was there stays.
    """
    # a link to a folder stays one
    folder = Path(os.path.realpath(folder))
    source = base_folder(patient.model)
    if source is not None and folder == Path(os.path.realpath(source)):
        raise OutputError(f"{folder} is the model's own folder; choose another for the output")
    try:
        with locked(folder, MARKER), staging(folder) as staged:
            check_output(folder)
            _write(staged, patient, tokenizer, source, as_stored)
            _write_card(staged, patient, patches, as_stored, told or Told())
            _settle(staged)
            origin = _origin(patient, patches)
            write_json(staged / MARKER, origin | {MANIFEST: manifest_of(staged)})
            # once more, since somebody may have put a file there while the weights were written
            replace_own(staged, folder, MARKER, check_output(folder), "config.json")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {folder}: {reason}; nothing was changed: free some space or choose "
            "another folder"
        ) from error


def _write(
    staged: Path,
    patient: Patient | FullLearner,
    tokenizer: PreTrainedTokenizerBase,
    source: Path | None,
    as_stored: bool,
) -> None:
    if source is not None:
        copy_beside(source, staged)
    if source is not None and as_stored:
        write_as_stored(patient, source, staged)
    else:
        _check_finite(patient)
        patient.model.save_pretrained(staged)
    if source is None or not has_tokenizer(staged):
        tokenizer.save_pretrained(staged)
    name_readable_class(staged)


def _write_card(
    staged: Path,
    patient: Patient | FullLearner,
    patches: Sequence[Path],
    as_stored: bool,
    told: Told,
) -> None:
    """Puts the plan and a card there; what the base says of itself is true of the base alone."""
    base_card = None
    if (staged / CARD).is_file():
        base_card = (staged / CARD).read_text(encoding="utf-8", errors="replace")
        (staged / CARD).rename(staged / BASE_CARD)
    precision = str(patient.model.dtype).removeprefix("torch.")
    done = Operated(
        plan=patient.plan,
        seed=patient.seed,
        init=patient.init,
        output_start=patient.output_start,
        patches=[patch.name for patch in patches],
        fingerprint=patient.base_fingerprint,
        precision="each tensor as it was stored" if as_stored else f"all of it in {precision}",
        whole_model=isinstance(patient, FullLearner),
        trained_before=isinstance(patient, FullLearner) and patient.trained_before,
        dtype=None if as_stored else short_name(patient.model.dtype),
        loaded_with=loaded_with(patient.model),
    )
    licences = sorted(path.name for path in staged.glob("LICEN[SC]E*"))
    write_text(staged / CARD, model_card(done, told, base_card, next(iter(licences), None)))
    write_text(staged / PLAN, patient.plan.to_yaml())


def _origin(patient: Patient | FullLearner, patches: Sequence[Path]) -> dict[str, object]:
    return {
        **header(KIND),
        "model": patient.plan.model,
        "fingerprint": patient.base_fingerprint,
        "checked": patient.checked,
        "patches": [str(patch) for patch in patches],
        "heads": [str(head) for head in patient.heads],
        "init": patient.init,
        "output_start": patient.output_start,
        "seed": patient.seed,
    }


def _check_finite(patient: Patient | FullLearner) -> None:
    for name, parameter in patient.model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            dtype = str(parameter.dtype).removeprefix("torch.")
            raise ModelError(
                f"{name} holds NaN or infinity in {dtype}; it may hold values beyond what {dtype} "
                "has, so choose another precision"
            )


def _settle(staged: Path) -> None:
    """Gives all files the mode of other new files, whoever wrote them, and flushes them."""
    # a folder that was just made has the mode that the umask, or its parent, asks for
    mode = staged.stat().st_mode & 0o777
    for path in staged.rglob("*"):
        if path.is_dir():
            path.chmod(mode)
            continue
        path.chmod(mode & 0o666)
        with path.open("rb") as opened:
            os.fsync(opened.fileno())
