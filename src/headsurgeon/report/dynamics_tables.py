"""The tables of a run's dynamics, for the terminal and for pages alike."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from headsurgeon.evaluation.course import SHAPES
from headsurgeon.evaluation.pairing import PairedRuns
from headsurgeon.evaluation.redistribution import UNTOUCHED, ZONES, GroupChange, Redistribution
from headsurgeon.evaluation.sweep import Sweep
from headsurgeon.report.data import Table
from headsurgeon.report.wording import estimated

# moments of a table; all of them are in the file
_MOMENTS = 6
_NOTHING = "–"


def zone_table(found: Redistribution, named: bool = False) -> Table:
    """What happened to each zone, at up to six moments, first and last among them.

    Args:
        found: the run.
        named: whether its name stands in the title, where there are several.
    """
    places = _spread(len(found.steps))
    rows = [
        (zone, _moment(found, place), *_group(found.zones[zone][place]))
        for zone in ZONES
        if found.zones[zone][0].heads
        for place in places
    ]
    return Table(
        key="zones",
        title=(f"{found.run}: c" if named else "C")
        + "hange of first-token mass against the untouched model",
        columns=(
            *("zone", "step (epoch)", "heads", "can change", f"|Δ| > {found.threshold:g}"),
            *("mean |Δ|", "of those that can", "worst", "newly sick", "left sick"),
        ),
        rows=tuple(rows),
        note="Step 0 is the operation without training. Heads that cannot change keep what they "
        "are and what they read.",
    )


def column_table(found: Redistribution) -> Table:
    """Untouched heads by head index, from the first trained moment to the last."""
    steps = [step for step in found.steps if step > 0]
    span = f"step {steps[0]} → {steps[-1]}" if steps else "not trained"
    return Table(
        key="columns",
        title=f"Mean |Δ| by column, {span}",
        columns=("column", "zone", "heads", "can change", "first", "last", "trend"),
        rows=tuple(
            (
                f"H{course.head}",
                course.zone,
                str(course.heads),
                str(course.could_change),
                *((_mass(course.mean[0]), _mass(course.mean[-1])) if steps else (_NOTHING,) * 2),
                course.trend,
            )
            for course in found.columns
        ),
        note="Over all heads of a column; spreading and recovering: by more than 0.02.",
    )


def distance_table(found: Redistribution) -> Table:
    """Untouched heads by distance from the surgery, at the last moment."""
    rows = [
        (name, f"{distance:+d}" if name == "layers above" else str(distance), *_group(group)[:5])
        for name, groups in (
            ("layers above", found.layers_above),
            ("heads aside", found.heads_aside),
        )
        for distance, group in groups.items()
        if group.could_change
    ]
    return Table(
        key="distance",
        title=f"Untouched heads by distance from the operated ones, step {found.steps[-1]}",
        columns=(
            *("distance", "of", "heads", "can change", f"|Δ| > {found.threshold:g}"),
            *("mean |Δ|", "of those that can"),
        ),
        rows=tuple(rows),
        note="Layers above the lowest operated one; head indices from the nearest operated one.",
    )


def shape_table(found: Redistribution) -> Table:
    """How many untouched heads have which shape over time."""
    counts = {zone: Counter[str]() for zone in UNTOUCHED}
    for zone in UNTOUCHED:
        for layer, head in np.argwhere(found.mask(zone)):
            counts[zone][found.shapes[f"L{layer}H{head}"]] += 1
    shapes = [shape for shape in SHAPES if any(count[shape] for count in counts.values())]
    return Table(
        key="shapes",
        title="Shape over time of the untouched heads",
        columns=("zone", *shapes),
        rows=tuple(
            (zone, *(str(count[shape]) for shape in shapes))
            for zone, count in counts.items()
            if count.total()
        ),
        note="Limits of the paper's released code: 0.03 and 0.005 of attention.",
    )


def paired_table(paired: PairedRuns) -> Table:
    """Runs beside each other at up to six of the steps that all of them have."""
    rows = []
    for place in _spread(len(paired.steps)):
        for number, run in enumerate(paired.runs):
            cells: list[str] = []
            for zone in UNTOUCHED:
                group = paired.groups(run, zone)[place]
                counted = f"{group.drifted} of {group.could_change}"
                cells += [counted, _mass(group.mean_could)] if group.heads else [_NOTHING] * 2
            first = number == 0
            agreement = _NOTHING if first else _signed(paired.agreement[number, place], 2)
            larger = _NOTHING if first else _signed(paired.larger[number, place], 4)
            rows.append((str(paired.steps[place]), run, *cells, agreement, larger))
    return Table(
        key="paired",
        title="Runs beside each other, of the untouched heads that can change",
        columns=(
            *("step", "run", "watched: drifted", "mean |Δ|", "outside: drifted", "mean |Δ|"),
            *("r with the first", "mean |Δ| minus it"),
        ),
        rows=tuple(rows),
        note=f"First: {paired.runs[0]}. r and the difference are over the heads untouched and able "
        "to change in both; r near 1: the same heads went the same way.",
        align=("right", "left", *(("right",) * 6)),
    )


def sweep_table(sweeps: Sequence[Sweep]) -> Table:
    """Where each run's loss on dev text was lowest, and what that step is on test."""
    rows = []
    for sweep in sweeps:
        best, onset = sweep.minimum, sweep.onset
        between = _NOTHING if math.isnan(best.low) else f"{best.low:.0f}–{best.high:.0f}"
        turned = _NOTHING if onset.step is None else str(onset.step)
        reported = "; ".join(f"{each.name} {estimated(each.change)}" for each in sweep.reported)
        rows.append(
            (
                sweep.run,
                str(best.step),
                between,
                f"{best.loss:.4f}",
                _NOTHING if math.isnan(best.change.value) else estimated(best.change),
                reported or _NOTHING,
                turned if onset.known else "unknown",
            )
        )
    return Table(
        key="sweep",
        title="Lowest loss on dev text",
        columns=(
            *("run", "step", "95 % interval", "nats per token", "dev minus untouched"),
            *("test minus untouched", "worse for good from"),
        ),
        rows=tuple(rows),
        note="The step is chosen on dev text, which flatters it there; on test it is reported.",
    )


def _group(group: GroupChange) -> tuple[str, ...]:
    worst = _NOTHING if group.worst is None else f"{group.worst} {_signed(group.worst_change, 3)}"
    return (
        str(group.heads),
        str(group.could_change),
        str(group.drifted),
        _mass(group.mean),
        _mass(group.mean_could),
        worst,
        str(group.newly_sick),
        str(group.left_sick),
    )


def _moment(found: Redistribution, place: int) -> str:
    epoch = f" ({found.epochs[place]:.2f})" if found.epochs else ""
    return f"{found.steps[place]}{epoch}"


def _spread(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, _MOMENTS))})


def _mass(value: float) -> str:
    return _NOTHING if math.isnan(value) else f"{value:.4f}"


def _signed(value: float, digits: int) -> str:
    return _NOTHING if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")
