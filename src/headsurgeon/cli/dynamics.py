"""`headsurgeon dynamics`: what a run did over time, from the files it left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from headsurgeon.cli.console import err, heading, out, table
from headsurgeon.cli.given_models import folder_names
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.planted import planted_remark
from headsurgeon.cli.progress import busy
from headsurgeon.errors import InputError, SettingsError
from headsurgeon.folders import locked
from headsurgeon.own_files import writing

if TYPE_CHECKING:
    from headsurgeon.evaluation import PairedRuns, Redistribution, Sweep
    from headsurgeon.report import Table

MARKER = "dynamics.json"


def dynamics(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN…",
            help="Folders of runs, of cells of a study, or of a study for all its cells. Those on "
            "one model and text are compared with the first.",
        ),
    ],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS",
            help="Count heads at these steps and passes alone, such as 0,40,epoch:1.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for results, tables of every head, and figures.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Shows what a run did over time: where attention went (redistribution), and its losses.

    Needs no model: all of it is in the log. Heads nobody touched are counted by zone, column,
    distance and shape; of the losses, where they are lowest and from where on they get worse."""
    if output is not None:
        check_folder(output, MARKER)
    with busy("reading"):
        sweeps, redistributions = _read(runs, at)
        paired = _paired(redistributions)
    for table_ in _tables(sweeps, redistributions, paired):
        _show(table_)
    if output is None:
        return
    parts = len(sweeps) + len(redistributions)
    with busy("drawing", parts) as did, locked(output, MARKER):
        names = _write(output, sweeps, redistributions, paired, did)
    out().print(f"\nwritten to {output}: {', '.join(names)}", soft_wrap=True)


def _read(runs: Sequence[Path], at: str | None) -> tuple[list["Sweep"], list["Redistribution"]]:
    from headsurgeon.training import redistribution, sweep

    folders = [folder for run in runs for folder in _folders(run)]
    places = [folder.resolve() for folder in folders]
    twice = sorted({str(f) for f, p in zip(folders, places, strict=True) if places.count(p) > 1})
    if twice:
        raise SettingsError(f"{', '.join(twice)}: named more than once; name each run once")
    names = folder_names([place.name for place in places])
    sweeps = [sweep(place).replace(run=name) for place, name in zip(places, names, strict=True)]
    redistributions = []
    for place, name, losses in zip(places, names, sweeps, strict=True):
        try:
            measured = redistribution(place).replace(run=name)
        except InputError as error:
            err().print(Text(f"note: no heads: {error}"), soft_wrap=True)
            continue
        redistributions.append(measured if at is None else measured.at(_steps(at, losses)))
    return sweeps, redistributions


def _folders(run: Path) -> list[Path]:
    """The run itself, or the trained cells of a study."""
    cells = sorted(place.parent for place in run.glob("cells/*/run.json"))
    return cells or [run]


def _steps(at: str, losses: "Sweep") -> list[int]:
    from math import floor

    from headsurgeon.training.moments import as_moments

    try:
        moments = as_moments(at)
    except ValueError as error:
        raise SettingsError(f"--at: {error}") from error
    return [
        moment
        if isinstance(moment, int)
        else floor(float(moment.removeprefix("epoch:")) * losses.steps_per_epoch)
        for moment in moments
    ]


def _paired(redistributions: Sequence["Redistribution"]) -> list["PairedRuns"]:
    """Runs on one model and text beside each other; those without a partner are left out."""
    from headsurgeon.evaluation import paired_runs

    groups: dict[tuple[object, ...], list[Redistribution]] = {}
    for run in redistributions:
        groups.setdefault((run.model, run.measured_on, run.mass_before.shape), []).append(run)
    if len(groups) > 1:
        said = "; ".join(", ".join(run.run for run in group) for group in groups.values())
        err().print(
            Text(f"note: on different models or texts, compared within each alone: {said}"),
            soft_wrap=True,
        )
    return [paired_runs(group) for group in groups.values() if len(group) > 1]


def _tables(
    sweeps: Sequence["Sweep"],
    redistributions: Sequence["Redistribution"],
    paired: Sequence["PairedRuns"],
) -> list["Table"]:
    from headsurgeon.report import dynamics_tables as tables

    shown = [tables.sweep_table(sweeps)]
    if len(redistributions) == 1:
        of_one = (tables.zone_table, tables.column_table, tables.distance_table, tables.shape_table)
        shown += [make(redistributions[0]) for make in of_one]
    else:
        shown += [tables.zone_table(run, named=True) for run in redistributions]
    return shown + [tables.paired_table(each) for each in paired]


def _show(shown: "Table") -> None:
    console = out()
    console.print()
    console.print(heading(shown.title), soft_wrap=True)
    console.print(table(shown.columns, shown.rows))
    console.print(Text(shown.note, style="dim"), soft_wrap=True)


def _write(
    output: Path,
    sweeps: Sequence["Sweep"],
    redistributions: Sequence["Redistribution"],
    paired: Sequence["PairedRuns"],
    did: Callable[[int], None],
) -> list[str]:
    from headsurgeon.files import header, write_json
    from headsurgeon.report.dynamics_files import write_redistribution, write_sweep

    with writing(output, MARKER) as staged:
        for sweep in sweeps:
            (staged / sweep.run).mkdir()
            write_sweep(sweep, staged / sweep.run, planted_remark(sweep.model))
            did(1)
        for run in redistributions:
            write_redistribution(run, staged / run.run, planted_remark(run.model))
            did(1)
        for number, each in enumerate(paired, 1):
            each.save(staged / f"paired-{number}.json")
        content = {
            "runs": [sweep.run for sweep in sweeps],
            "paired": [list(p.runs) for p in paired],
        }
        write_json(staged / MARKER, {**header("dynamics"), **content})
        return sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*.*"))
