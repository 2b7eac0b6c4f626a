"""What is written of a run's dynamics: results, a table of every head, and figures."""

import csv
import io
from pathlib import Path

import numpy as np

from headsurgeon.evaluation.redistribution import Redistribution
from headsurgeon.evaluation.sweep import Sweep
from headsurgeon.files import write_text
from headsurgeon.heads import HeadId
from headsurgeon.report.change_figures import ChangePanel, change_map, watched_map
from headsurgeon.report.dynamics_figures import column_lines, sweep_figure
from headsurgeon.report.style import write_png

_COLUMNS = ("layer", "head", "zone", "can_change", "step", "epoch", "mass", "change", "shape")


def write_sweep(sweep: Sweep, folder: Path, footnote: str = "") -> None:
    """Writes sweep.json and loss.png.

    Raises:
        WriteError: they cannot be written.
    """
    sweep.save(folder / "sweep.json")
    write_png(sweep_figure(sweep, footnote=footnote), folder / "loss.png")


def write_redistribution(found: Redistribution, folder: Path, footnote: str = "") -> None:
    """Writes redistribution.json, heads.csv, change.png, and as it has them watched and columns.

    Raises:
        WriteError: they cannot be written.
    """
    found.save(folder / "redistribution.json")
    write_text(folder / "heads.csv", heads_csv(found))
    panels = [ChangePanel.of(found)]
    first, last = found.steps[0], found.steps[-1]
    if first == 0 < last:
        panels.insert(0, ChangePanel.of(found, 0, f"{found.run}, step 0: not trained"))
    write_png(change_map(panels, footnote=footnote), folder / "change.png")
    if found.mask("watched").any():
        write_png(watched_map(found, footnote=footnote), folder / "watched.png")
    if last > 0:
        for zone in ("watched", "outside"):
            if found.mask(zone).any():
                figure = column_lines(found, zone, footnote=footnote)
                write_png(figure, folder / f"columns-{zone}.png")


def heads_csv(found: Redistribution) -> str:
    """A row per head and moment: where the head is, its mass and its change, fraction."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    zones = {zone: found.mask(zone) for zone in ("operated", "watched", "outside")}
    for layer, head in np.argwhere(found.attends):
        zone = next(name for name, mask in zones.items() if mask[layer, head])
        shape = found.shapes.get(str(HeadId(int(layer), int(head))), "")
        can = zone == "operated" or not found.fixed[layer, head]
        for place, step in enumerate(found.steps):
            epoch = f"{found.epochs[place]:.4f}" if found.epochs else ""
            mass = found.mass[place, layer, head]
            change = mass - found.mass_before[layer, head]
            numbers = (f"{mass:.5f}", f"{change:.5f}")
            rows.writerow((layer, head, zone, str(can).lower(), step, epoch, *numbers, shape))
    return text.getvalue()
