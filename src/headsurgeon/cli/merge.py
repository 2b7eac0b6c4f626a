"""`headsurgeon merge`: a plain checkpoint that `from_pretrained` loads."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import out, python_text
from headsurgeon.cli.loading import open_model
from headsurgeon.cli.outputs import check_file, check_folder
from headsurgeon.cli.progress import busy
from headsurgeon.errors import InputError, OutputError, SettingsError
from headsurgeon.files import shorten


def merge(
    model: options.Model,
    patches: options.PatchFiles,
    output: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for the checkpoint.", show_default=False),
    ],
    patch_output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write one patch in place of several: on the same model it gives the same.",
            show_default=False,
        ),
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Figures for the model's card, written by evaluate --output; several may be "
            "given. What runs say of their training is read beside their patches.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Precision to write: fp32, bf16 or fp16; auto leaves each tensor as stored.",
            rich_help_panel=options.MACHINE,
        ),
    ] = "auto",
    tokenizer: options.OtherTokenizer = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Writes the model with patches merged in, and all that lies beside it, as a checkpoint.

    Or with the weights of a run of operate --whole-model: its weights.safetensors.
    """
    from headsurgeon.models.origin import checkpoint_folder
    from headsurgeon.operation import Patient, apply_trained, check_trained
    from headsurgeon.operation.files_beside_weights import MARKER
    from headsurgeon.operation.merged_checkpoint import check_output, write_checkpoint
    from headsurgeon.operation.model_card import CARD, Told
    from headsurgeon.operation.weights_file import holds_whole_model
    from headsurgeon.training.run_file import runs_beside

    check_folder(output, MARKER)
    check_output(output)
    check_trained(patches)
    told = Told(runs_beside(patches), [read_evaluation(path) for path in evaluation or ()])
    if patch_output is not None:
        if any(holds_whole_model(path) for path in patches):
            raise SettingsError(
                f"--patch-output is of patches, and {patches[0]} holds a whole model; leave it out"
            )
        check_file(patch_output, "patch.safetensors")
        if patch_output.exists():
            raise OutputError(f"{patch_output} exists; choose another name, or move it away")
    precision = own_dtype(model, trust_remote_code) if dtype == "auto" else dtype
    loading = options.Loading(precision, "cpu", tokenizer, trust_remote_code)
    loaded, own_tokenizer = open_model(model, loading)
    as_stored = dtype == "auto" and checkpoint_folder(loaded) is not None
    with busy("merging"):
        learner = apply_trained(loaded, patches)
        write_checkpoint(learner, own_tokenizer, output, patches, as_stored, told)
        if patch_output is not None:
            learner.save(patch_output)
    written = "each tensor in the precision it was stored in" if as_stored else precision
    console = out()
    what = f"{len(learner.heads)} heads" if isinstance(learner, Patient) else "all weights"
    console.print(
        f"{what} merged into {model}, {written}, written to {output}",
        soft_wrap=True,
    )
    console.print(f"checked: {learner.checked}", soft_wrap=True)
    console.print(f"its card: {output / CARD}", soft_wrap=True)
    if patch_output is not None:
        console.print(f"one patch for all of it: {patch_output}", soft_wrap=True)
    console.print(
        f"load it with: AutoModelForCausalLM.from_pretrained({python_text(output)}"
        f"{', trust_remote_code=True' if trust_remote_code else ''})",
        soft_wrap=True,
    )


def read_evaluation(path: Path) -> dict[str, Any]:
    """A file of figures, checked as far as a card shows it.

    Raises:
        InputError: it is no such file, or a figure is missing.
    """
    from headsurgeon.files import read_json
    from headsurgeon.scores import Estimate, Evaluation

    content = read_json(path, "evaluation")
    try:
        for found in content["evaluations"].values():
            Evaluation.model_validate(found)
        for change in content.get("differences", {}).values():
            Estimate.model_validate(change)
        if content.get("recovery") is not None:
            heads = set(content["recovery"]["heads"])
            if not heads.issuperset(content["recovery"]["recovered"]):
                raise InputError("recovery: heads recovered that were not operated on")
    except (InputError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path}: not the figures that headsurgeon evaluate --output writes: "
            f"{shorten(str(error), 200)}"
        ) from error
    return content


def own_dtype(model: str, trust_remote_code: bool = False) -> str:
    """Short name of the precision a configuration names; fp32 when it names none."""
    import torch

    from headsurgeon.models.device import short_name
    from headsurgeon.models.loading import load_config

    stored = load_config(model, trust_remote_code=trust_remote_code).dtype
    return (short_name(stored) if isinstance(stored, torch.dtype) else None) or "fp32"
