"""What `headsurgeon figures` writes: figures in every format, captions, what is lacking."""

from collections.abc import Sequence
from pathlib import Path

from headsurgeon.files import header, write_bytes, write_json, write_text
from headsurgeon.report.paper_figures import Drawing, Lacking
from headsurgeon.report.style import Format, picture

MARKER = "figures.json"
# no markup, which a name might hold
CAPTIONS = "captions.txt"


def write_figures(
    found: Sequence[Drawing | Lacking], folder: Path, formats: Sequence[Format]
) -> None:
    """Writes the figures, captions.txt, and figures.json, which says what each file is.

    Raises:
        WriteError: they cannot be written.
    """
    drawn = [each for each in found if isinstance(each, Drawing)]
    lacking = [each for each in found if isinstance(each, Lacking)]
    for each in drawn:
        for kind in formats:
            content = picture(each.figure, kind, each.caption)
            write_bytes(folder / f"{each.name}.{kind}", content)
    lines = [f"{each.name}\n{each.caption}\n" for each in drawn]
    lines += [f"{each.name}\nNot drawn: {each.reason}\n" for each in lacking]
    write_text(folder / CAPTIONS, "\n".join(lines))
    figures = [
        {"name": e.name, "files": [f"{e.name}.{kind}" for kind in formats], "caption": e.caption}
        for e in drawn
    ]
    missing = {each.name: each.reason for each in lacking}
    write_json(folder / MARKER, {**header("figures"), "figures": figures, "lacking": missing})
