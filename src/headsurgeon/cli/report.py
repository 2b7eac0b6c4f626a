"""`headsurgeon report`: the page of a study, rewritten from its result files alone."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from headsurgeon.cli.console import out


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a study.")],
) -> None:
    """Rewrites study.html, study.json and the figures of a study, finished or not.

    It needs no model: everything follows from the cells' files.
    """
    from headsurgeon.report.study_page import write_report

    out().print(Text(f"written: {write_report(folder)}"))
