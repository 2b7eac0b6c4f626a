"""The page at the end of a command."""

from pathlib import Path

from rich.text import Text

from headsurgeon.cli.console import out
from headsurgeon.extras import command, installed


def show_page(folder: Path) -> None:
    """Writes the page of a folder of results, and prints where it is, or what it takes."""
    if not installed("jinja2"):
        out().print(f"no page was written: that takes jinja2; run: {command('jinja2')}")
        return
    from headsurgeon.report.folder_page import write_report

    out().print(Text(f"page: {write_report(folder)}"), soft_wrap=True)
