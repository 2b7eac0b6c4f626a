"""`headsurgeon report`: one self-contained page, made from result files alone."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from headsurgeon.cli.console import out
from headsurgeon.cli.outputs import check_file, check_own_page


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="Folders that operate, study, demo, diagnose, compare or generate wrote; or a "
            "plan, a diagnosis or a series itself.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page.",
            show_default="report.html in the first folder",
        ),
    ] = None,
) -> None:
    """Writes one HTML page to look at: head map over time, losses, contrasts, all as tables too.

    It needs no model and no network: everything follows from the files. Several folders stand side
    by side.
    """
    from headsurgeon.report.folder_page import write_report

    if output is not None:
        check_file(output, "report.html")
        check_own_page(output)
    out().print(Text(f"written: {write_report(*folders, output=output)}"))
