"""Several runs beside each other: their losses in one chart, and their heads paired by step."""

from collections.abc import Sequence
from pathlib import Path

from headsurgeon.errors import InputError
from headsurgeon.evaluation.pairing import paired_runs
from headsurgeon.report import charts
from headsurgeon.report import dynamics_tables as tables
from headsurgeon.report.charts import Level
from headsurgeon.report.data import Curve, Section
from headsurgeon.report.run_page import tokens_after
from headsurgeon.training.recorded import redistribution, sweep
from headsurgeon.training.run_file import read_run_file


def side_by_side(folders: Sequence[Path]) -> list[Section]:
    """A section of two runs and more; nothing of fewer.

    Runs on other models or other dev text share no chart: losses compare on the same text alone.
    """
    if len(folders) < 2:
        return []
    losses = [sweep(folder) for folder in folders]
    texts = {
        (read_run_file(f).identity["dev"].get("tokens"), s.model)
        for f, s in zip(folders, losses, strict=True)
    }
    drawn = []
    if len(texts) == 1:
        curves = []
        for folder, each in zip(folders, losses, strict=True):
            counted = tokens_after(read_run_file(folder), each.steps)
            curves.append(Curve(each.run, each.run, counted, tuple(each.dev.loss.tolist())))
        untouched = losses[0].dev.untouched
        levels = [Level("untouched", untouched)] if untouched == untouched else []
        drawn.append(charts.loss_chart("Loss on dev text", curves, levels, losses[0].dev.corpus))
    shown = [tables.sweep_table(losses)]
    try:
        moved = [redistribution(folder) for folder in folders]
        shown.append(tables.paired_table(paired_runs(moved)))
    except InputError:
        # of another model, or on other text: each has its own tables
        pass
    return [Section("Side by side", charts=tuple(drawn), tables=tuple(shown))]
