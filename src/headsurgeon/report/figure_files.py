"""What `headsurgeon figures` writes: figures in every format, captions, what is lacking."""

from collections.abc import Callable, Sequence
from pathlib import Path

from headsurgeon.files import header, write_bytes, write_json, write_text
from headsurgeon.report.paper_figures import Drawing, Lacking
from headsurgeon.report.style import Format, picture

MARKER = "figures.json"
# no markup, which a name might hold
CAPTIONS = "captions.txt"


def write_figures(
    found: Sequence[Drawing | Lacking],
    folder: Path,
    formats: Sequence[Format],
    on_figures: Callable[[int], None] | None = None,
) -> None:
    """Writes the figures, captions.txt, and figures.json, which says what each file is.

    Args:
        found: what `paper_figures` drew, and what it could not draw.
        folder: it exists.
        formats: each figure is written in each.
        on_figures: told how many figures have been written since the last call.

    Raises:
        WriteError: they cannot be written.
    """
    drawn = [each for each in found if isinstance(each, Drawing)]
    lacking = [each for each in found if isinstance(each, Lacking)]
    for each in drawn:
        for kind in formats:
            content = picture(each.figure, kind, each.caption)
            write_bytes(folder / f"{each.name}.{kind}", content)
        if on_figures is not None:
            on_figures(1)
    lines = [f"{each.name}\n{each.caption}\n" for each in drawn]
    lines += [f"{each.name}\nNot drawn: {each.reason}\n" for each in lacking]
    write_text(folder / CAPTIONS, "\n".join(lines))
    figures = [
        {"name": e.name, "files": [f"{e.name}.{kind}" for kind in formats], "caption": e.caption}
        for e in drawn
    ]
    missing = {each.name: each.reason for each in lacking}
    write_json(folder / MARKER, {**header("figures"), "figures": figures, "lacking": missing})
