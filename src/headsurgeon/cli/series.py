"""Checkpoints of one training run: what `diagnose --series` shows and writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headsurgeon.cli.console import facts, first_few, heading, out, table
from headsurgeon.cli.examining import Examined
from headsurgeon.cli.planted import planted_remark
from headsurgeon.errors import SettingsError
from headsurgeon.own_files import writing
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

    from headsurgeon.diagnosis import HeadSeries
    from headsurgeon.models.checkpoints import Checkpoint

SERIES = "series.jsonl"
FIGURE = "series.png"


def series_of_run(
    examined: Sequence[Examined], checkpoints: "Sequence[Checkpoint]"
) -> "HeadSeries":
    """The curves of a run's checkpoints; raises as `diagnosis.series_of` does.

    Raises:
        SettingsError: one has another tokenizer, so that its windows hold other tokens.
    """
    from headsurgeon.diagnosis import series_of

    for each, checkpoint in zip(examined, checkpoints, strict=True):
        if each.vocabulary != examined[0].vocabulary:
            raise SettingsError(
                f"{checkpoint.label} has another tokenizer than {checkpoints[0].label}, so they "
                "read other tokens; name one for all with --tokenizer"
            )
    return series_of(
        [each.diagnosis for each in examined],
        [each.step for each in checkpoints],
        [each.label for each in checkpoints],
        model=f"{checkpoints[0].spec} … {checkpoints[-1].spec}",
    )


def begin_series(output: Path, series: "HeadSeries") -> None:
    """Marks a folder as a series' before its parts are written: a kill must not orphan them.

    Raises:
        OutputError: the folder holds something else, or files of ours that were edited since.
        WriteError: it cannot be written.
    """
    from headsurgeon.diagnosis import HeadSeries

    with writing(output, SERIES) as staged:
        HeadSeries(series.source, ()).save(staged / SERIES)


def write_series(output: Path, series: "HeadSeries", names: Sequence[str]) -> None:
    """Writes series.jsonl and series.png; `names` are the models, some of which may be planted.

    Raises:
        OutputError: the folder holds something else, or files of ours that were edited since.
        WriteError: they cannot be written.
    """
    from headsurgeon.report.series_figure import series_figure
    from headsurgeon.report.style import write_png

    with writing(output, SERIES) as staged:
        series.save(staged / SERIES)
        remarks = [remark for name in names if (remark := planted_remark(name))]
        footnote = "\n".join([printable(reading(series)), *sorted(set(remarks))])
        write_png(series_figure(series, footnote=footnote), staged / FIGURE)


def show_series(
    output: Path, series: "HeadSeries", names: Sequence[str], written: Sequence[str]
) -> None:
    """Prints the table and the rule behind it."""
    console = out()
    console.print(heading(f"{len(series.points)} checkpoints on {reading(series)}"), soft_wrap=True)
    console.print()
    console.print(series_table(series))
    limit = series.source.thresholds.sink
    lines = {
        "newly sick": f"95 % interval of the mass wholly above {limit:g} for the first time; "
        "came back: wholly at or below",
        "at the start": first_few(series.sick(0)) + " sick" if series.sick(0) else "no sick head",
    }
    for name in names:
        if remark := planted_remark(name):
            lines[name] = remark
    console.print()
    console.print(facts(lines))
    console.print(f"\nwritten to {output}: {', '.join(written)}", soft_wrap=True)


def series_table(series: "HeadSeries") -> "Table":
    """One row per checkpoint: how many heads are sick, and which crossed the limit."""
    import numpy as np

    from headsurgeon.diagnosis.crossings import CAME_BACK, COLLAPSED, crossed

    rows = []
    for index, point in enumerate(series.points):
        mass = point.mass[np.isfinite(point.mass)]
        rows.append(
            [
                point.label,
                str(int(series.is_sick[index].sum())),
                str(int((mass > series.source.thresholds.dead).sum())),
                f"{mass.mean():.3f}",
                *(
                    first_few(crossed(series.crossings, kind, index), 6) or "—"
                    for kind in (COLLAPSED, CAME_BACK)
                ),
            ]
        )
    return table(["checkpoint", "sick", "dead", "mean mass", "newly sick", "came back"], rows)


def reading(series: "HeadSeries") -> str:
    """The text that all of them read."""
    source = series.source
    return (
        f"{source.corpus}, split {source.split}: {source.count} windows of {source.length} tokens "
        f"from {source.documents} documents"
    )
