"""`headsurgeon push`: a merged model or a patch to the Hugging Face Hub, shown before it goes."""

from pathlib import Path
from typing import Annotated

import typer

from headsurgeon.cli.console import heading, out, table
from headsurgeon.cli.progress import busy


def push(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|PATCH",
            help="A folder that merge wrote, or a patch.",
            show_default=False,
        ),
    ],
    repository: Annotated[
        str,
        typer.Argument(metavar="OWNER/NAME", help="The repository on the Hub.", show_default=False),
    ],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Figures for the card of a patch, written by evaluate --output; a merged model "
            "has its card already.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public, not private.")
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "headsurgeon push",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Upload what is shown.")] = False,
) -> None:
    """Shows which files would go where; with --yes uploads them to the Hugging Face Hub.

    Without --yes nothing is asked of the network. A repository that exists keeps its other files
    and stays public or private as it is.
    """
    from headsurgeon.cli.merge import read_evaluation
    from headsurgeon.errors import SettingsError
    from headsurgeon.operation.model_card import Told, on_the_hub
    from headsurgeon.operation.publishing import publish, uploads_of
    from headsurgeon.training.run_file import runs_beside

    if not on_the_hub(repository) or "@" in repository:
        raise SettingsError(f"expected a repository OWNER/NAME, got {repository!r}")
    if evaluation and not source.is_file():
        raise SettingsError(
            "--evaluation is for the card of a patch; a merged model gets its figures from "
            "headsurgeon merge --evaluation"
        )
    runs = runs_beside([source]) if source.is_file() else []
    told = Told(runs, [read_evaluation(path) for path in evaluation or ()])
    uploads = uploads_of(source, told)
    console = out()
    kind = "public" if public else "private"
    console.print(
        heading(f"{source} → https://huggingface.co/{repository} (if new: {kind})"),
        soft_wrap=True,
    )
    rows = [[upload.name, f"{upload.size:,}", upload.remark] for upload in uploads]
    console.print(table(["file", "bytes", "remark"], rows))
    total = sum(upload.size for upload in uploads)
    console.print(f"{len(uploads)} files, {total:,} bytes")
    if not yes:
        console.print("nothing was uploaded; the same command with --yes does it")
        return
    from huggingface_hub import HfApi

    with busy(f"uploading {total:,} bytes"):
        where = publish(HfApi(), repository, uploads, not public, message)
    console.print(f"uploaded: {where}", soft_wrap=True)
