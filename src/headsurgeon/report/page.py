"""One HTML page that stands alone: styles inline, pictures inside, nothing fetched."""

import base64
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from headsurgeon.files import write_text
from headsurgeon.printable import printable
from headsurgeon.report.data import Page


def render(page: Page) -> str:
    """The page as HTML; all text is escaped, and tables are real tables."""
    environment = Environment(
        loader=FileSystemLoader(str(files("headsurgeon.report") / "templates")),
        autoescape=True,
        finalize=_legible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("page.html.j2").render(page=page)


def write_page(page: Page, path: Path | str) -> Path:
    """Writes the page to `path`, atomically.

    Raises:
        WriteError: the file could not be written.
    """
    write_text(path, render(page))
    return Path(path)


def _legible(value: object) -> object:
    """Text without control characters, reading directions and lone surrogates."""
    if isinstance(value, str):
        return printable(value, keep="\n\t\xa0\xad")
    return value


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
