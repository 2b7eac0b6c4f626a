"""One HTML page that stands alone: styles, script and data inside, nothing fetched."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headsurgeon.files import package_version, write_text
from headsurgeon.printable import printable
from headsurgeon.report.colours import DIVERGING, DIVERGING_DARK, SEQUENTIAL
from headsurgeon.report.data import HeadView, Page
from headsurgeon.report.head_data import head_data
from headsurgeon.report.head_map_svg import head_map_svg
from headsurgeon.report.head_moments import HeadMoments
from headsurgeon.report.page_size import fitted
from headsurgeon.report.quantised import ALPHABET

_SCALES = {
    "sequential": SEQUENTIAL,
    # the darkest would be lost on a dark ground
    "sequential_dark": SEQUENTIAL[-2::-1],
    "diverging": DIVERGING,
    "diverging_dark": DIVERGING_DARK,
}


def render(page: Page) -> str:
    """The page as HTML; all text is escaped, and tables are real tables.

    It has at most 300 kB, and maps of attention another 700 kB at most: what does not fit is left
    out, moments first, and the page says so.
    """
    return fitted(page, _rendered)


def write_page(page: Page, path: Path | str) -> Path:
    """Writes the page to `path`, atomically.

    Raises:
        WriteError: the file could not be written.
    """
    write_text(path, render(page))
    return Path(path)


def _rendered(page: Page, numbers: int, maps: int, remarks: Sequence[str]) -> str:
    models, left_out = head_data(page.heads, numbers, maps)
    content = {"alphabet": ALPHABET, "scales": _SCALES, "models": models}
    style, script = _template("page.css"), _template("page.js")
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            page=page,
            version=package_version(),
            pictures=[] if not page.heads else _pictures(page.heads[0]),
            remarks=[*left_out, *remarks],
            data=_json(content),
            style=Markup(style),
            style_hash=_hash(style),
            script=Markup(script),
            script_hash=_hash(script),
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(str(files("headsurgeon.report") / "templates")),
        autoescape=True,
        finalize=_legible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _template(name: str) -> str:
    """A style sheet or a script as it stands in its element, line breaks around it included."""
    return (files("headsurgeon.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """By which a content security policy knows an element."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _json(content: Any) -> Markup:
    """JSON that can stand in a script element, whatever its texts hold."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _legible(value: object) -> object:
    """Text without control characters, reading directions and lone surrogates."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value, keep="\n\t\xa0\xad")
    return value


def _pictures(model: HeadMoments) -> list[dict[str, Any]]:
    """The first and the last moment, for readers without scripts."""
    places = sorted({0, len(model.moments) - 1})
    return [
        {
            "title": model.moments[place].label,
            "svg": head_map_svg(
                HeadView.at(model, place), model.operated, model.watched, titles=False
            ),
        }
        for place in places
    ]
