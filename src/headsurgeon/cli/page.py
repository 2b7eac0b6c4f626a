"""The page at the end of a command."""

from pathlib import Path

from rich.text import Text

from headsurgeon.cli.console import out


def show_page(folder: Path) -> None:
    """Writes the page of a folder of results, and prints where it is."""
    from headsurgeon.report.folder_page import write_report

    out().print(Text(f"page: {write_report(folder)}"), soft_wrap=True)
