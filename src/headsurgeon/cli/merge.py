"""`headsurgeon merge`: a plain checkpoint that `from_pretrained` loads."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import busy, out
from headsurgeon.cli.loading import open_model
from headsurgeon.errors import WriteError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from headsurgeon.operate import Patient

MARKER = "headsurgeon.json"


def merge(
    model: options.Model,
    patch: options.PatchFile,
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for the checkpoint.", show_default=False),
    ],
    dtype: Annotated[
        str,
        typer.Option(
            help="Precision to write: fp32, bf16 or fp16; auto keeps the model's own.",
            rich_help_panel=options.MACHINE,
        ),
    ] = "auto",
    revision: options.Revision = None,
) -> None:
    """Writes the model with a patch merged in, and its tokenizer, as an ordinary checkpoint."""
    from headsurgeon.files import claim_folder
    from headsurgeon.operate import apply_patch, read_patch

    if output.exists():
        claim_folder(output, MARKER)
    read_patch(patch)
    precision = own_dtype(model, revision) if dtype == "auto" else dtype
    loaded, tokenizer = open_model(model, dtype=precision, device="cpu", revision=revision)
    with busy("merging"):
        patient = apply_patch(loaded, patch)
        write_checkpoint(patient, tokenizer, output, patch)
    console = out()
    console.print(
        f"{len(patient.heads)} heads merged into {model}, {precision}, written to {output}",
        soft_wrap=True,
        markup=False,
    )
    console.print(
        f'load it with: AutoModelForCausalLM.from_pretrained("{output}")',
        soft_wrap=True,
        markup=False,
    )


def own_dtype(model: str, revision: str | None = None) -> str:
    """Short name of the precision a checkpoint is stored in; fp32 when it does not say."""
    from headsurgeon.models.device import DTYPES
    from headsurgeon.models.load import load_config

    stored = load_config(model, revision=revision).dtype
    return next((name for name, dtype in DTYPES.items() if dtype == stored), "fp32")


def write_checkpoint(
    patient: "Patient", tokenizer: "PreTrainedTokenizerBase", output: Path, patch: Path
) -> None:
    """Writes the merged model of `patient` to the folder `output`: all of it, or nothing.

    Raises:
        OutputError: the folder holds something else.
        WriteError: the disk is full or the folder cannot be written; what was there stays.
    """
    from safetensors import SafetensorError

    from headsurgeon.files import claim_folder, header, write_json

    if output.exists():
        claim_folder(output, MARKER)
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
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        patient.model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        write_json(unfinished / MARKER, origin)
        _take_place(unfinished, output)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(
            f"cannot write {output}: {reason}; nothing was changed: free some space or choose "
            "another folder"
        ) from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)


def _take_place(finished: Path, output: Path) -> None:
    # a folder made by mkdtemp is private to its owner; the result follows the output's parent
    finished.chmod(output.parent.stat().st_mode & 0o777)
    if not output.exists():
        finished.rename(output)
        return
    previous = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
    output.rename(previous / "checkpoint")
    try:
        finished.rename(output)
    except OSError:
        (previous / "checkpoint").rename(output)
        raise
    finally:
        shutil.rmtree(previous, ignore_errors=True)
