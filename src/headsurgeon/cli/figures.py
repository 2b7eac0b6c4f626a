"""`headsurgeon figures`: the paper's seven figures, drawn from your own results."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from headsurgeon.cli.console import err, facts, heading, out
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.planted import planted_remark
from headsurgeon.cli.progress import busy
from headsurgeon.errors import InputError, ModelError, SettingsError
from headsurgeon.folders import locked
from headsurgeon.own_files import writing
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from headsurgeon.paper import Size
    from headsurgeon.report.material import Material
    from headsurgeon.report.paper_figures import Wanted
    from headsurgeon.report.style import Format

FIGURES = "figures"


def figures(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR…",
            help="Folders of runs, diagnoses, passes or studies, or what dynamics wrote.",
        ),
    ],
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Of svg, png and pdf.")
    ] = "svg,png",
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Draw this run; repeatable, at most three, in this order. By default the first "
            "three.",
            show_default=False,
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option(
            "--published",
            help="Lay what the paper shows of the same BLOOM under what was measured, marked as "
            "read off its figures.",
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the figures, captions.txt and figures.json.",
            show_default="figures in the one DIR",
        ),
    ] = None,
) -> None:
    """Draws the paper's seven figures, as far as the results allow, and names what is missing.

    Needs no model. Text in SVG is outlines, in PDF text with its font inside. Captions say what was
    planted and what was read off.
    """
    from headsurgeon.report.figure_files import MARKER, write_figures
    from headsurgeon.report.material import read_material
    from headsurgeon.report.paper_figures import Drawing, Lacking, paper_figures

    kinds = _formats(formats)
    if output is None and len(folders) > 1:
        raise SettingsError("of several folders, say where the figures are to go: --output DIR")
    place = folders[0] / FIGURES if output is None else output
    with busy("reading"):
        material = _chosen(read_material(folders), run or ())
    check_folder(place, MARKER)
    wanted = _wanted(material, published)
    with busy("drawing"):
        found = paper_figures(wanted)
    # the first sentence; captions.txt has all of it
    drawn = [
        (each.name, each.caption.partition(". ")[0]) for each in found if isinstance(each, Drawing)
    ]
    with (
        busy("writing", len(drawn)) as did,
        locked(place, MARKER),
        writing(place, MARKER) as staged,
    ):
        write_figures(found, staged, kinds, on_figures=did)
    lacking = [(each.name, each.reason) for each in found if isinstance(each, Lacking)]
    console = out()
    for title, rows in ((f"{len(drawn)} figures", drawn), ("Not drawn", lacking)):
        if rows:
            console.print(heading(title))
            console.print(facts(dict(rows)))
            console.print()
    console.print(f"written to {place}: {', '.join(kinds)}, captions.txt", soft_wrap=True)


def _formats(given: str) -> "list[Format]":
    from headsurgeon.report.style import FORMATS

    names = [name.strip().lower() for name in given.split(",") if name.strip()]
    known = [kind for kind in FORMATS if kind in names]
    unknown = sorted(set(names) - set(FORMATS))
    if unknown or not known:
        raise SettingsError(
            f"--format: expected one or more of {', '.join(FORMATS)}, separated by commas; got "
            f"{', '.join(unknown) or 'nothing'}"
        )
    return known


def _chosen(material: "Material", names: Sequence[str]) -> "Material":
    """The runs to draw; says which are left out."""
    from headsurgeon.report.paper_figures import MOST_RUNS

    for reason in material.lacking:
        err().print(Text(printable(f"note: left out: {reason}")), soft_wrap=True)
    if len(names) > MOST_RUNS or len(set(names)) < len(names):
        raise SettingsError(f"--run: expected at most {MOST_RUNS} different runs")
    if names:
        try:
            return material.of_runs(names)
        except InputError as error:
            raise SettingsError(f"--run: {error}") from error
    shown, left = material.runs[:MOST_RUNS], material.runs[MOST_RUNS:]
    if left:
        said = f"note: {len(left)} further runs are not drawn; name up to three with --run: "
        err().print(Text(printable(said + ", ".join(left))), soft_wrap=True)
    return material.of_runs(shown)


def _wanted(material: "Material", published: bool) -> "Wanted":
    from headsurgeon.report.paper_figures import Wanted
    from headsurgeon.report.wording import PLANTED_SHORT

    remarks = {
        model: PLANTED_SHORT if model in material.planted else planted_remark(model)
        for model in material.models
    }
    sizes = {model: size for model in material.models if (size := _size(model)) is not None}
    if published and not sizes:
        err().print(
            Text("note: --published: none of the models is a BLOOM that the paper shows"),
            soft_wrap=True,
        )
    return Wanted(material, remarks, sizes if published else {})


def _size(model: str) -> "Size | None":
    from headsurgeon.models.address import Address
    from headsurgeon.paper import bloom_size

    # what was loaded may be a folder of any name; a checkpoint in a subfolder is another model
    with suppress(ModelError):
        address = Address.parse(model)
        return None if address.subfolder else bloom_size(address.repository)
    return None
