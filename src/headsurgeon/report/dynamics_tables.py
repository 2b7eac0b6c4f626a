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
        (zone, _moment(found, place), *_group(group), _worst(group), _sick(group))
        for zone in ZONES
        if found.zones[zone][0].heads
        for place in places
        for group in (found.zones[zone][place],)
    ]
    return Table(
        key="zones",
        title=(f"{found.run}: c" if named else "C")
        + "hange of first-token mass against the untouched model",
        columns=(
            *("zone", "step (pass)", "heads (can)", f"> {found.threshold:g}"),
            *("mean |Δ| (can)", "worst", "sick"),
        ),
        rows=tuple(rows),
        note="In brackets: of the heads that can change; the others keep what they are and what "
        "they read. Step 0 is the operation without training. Sick: newly, and no longer.",
    )


def column_table(found: Redistribution) -> Table:
    """Untouched heads by head index, from the first trained moment to the last."""
    steps = [step for step in found.steps if step > 0]
    span = f"step {steps[0]} → {steps[-1]}" if steps else "not trained"
    return Table(
        key="columns",
        title=f"Mean |Δ| by column, {span}",
        columns=("column", "zone", "heads (can)", "first", "last", "trend"),
        rows=tuple(
            (
                f"H{course.head}",
                course.zone,
                f"{course.heads} ({course.could_change})",
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
        (name, f"{distance:+d}" if name == "layers above" else str(distance), *_group(group))
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
            *("distance", "by", "heads (can)", f"> {found.threshold:g}"),
            "mean |Δ| (can)",
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
                counted = f"{group.drifted}/{group.could_change}, {_mass(group.mean_could)}"
                cells.append(counted if group.heads else _NOTHING)
            first = number == 0
            agreement = _NOTHING if first else _signed(paired.agreement[number, place], 2)
            larger = _NOTHING if first else _signed(paired.larger[number, place], 4)
            rows.append((str(paired.steps[place]), run, *cells, agreement, larger))
    return Table(
        key="paired",
        title="Runs beside each other, of the untouched heads that can change",
        columns=(
            *("step", "run", "watched, mean |Δ|", "outside, mean |Δ|"),
            *("r", "minus first"),
        ),
        rows=tuple(rows),
        note=f"Of those that can change, how many drifted, and mean |Δ|. First: {paired.runs[0]}; "
        "r with it and mean |Δ| minus its are over the heads untouched and able to change in both. "
        "r near 1: the same heads went the same way.",
        align=("right", "left", *(("right",) * 4)),
    )


def sweep_table(sweeps: Sequence[Sweep]) -> Table:
    """Where each run's loss on dev text was lowest, and what that step is on test."""
    rows = []
    for sweep in sweeps:
        best, onset = sweep.minimum, sweep.onset
        between = _NOTHING if math.isnan(best.low) else f"{best.low:.0f}–{best.high:.0f}"
        turned = "never" if onset.step is None else str(onset.step)
        against = _NOTHING if math.isnan(best.change.value) else estimated(best.change)
        turned = turned if onset.known else "unknown"
        rows.append(
            (sweep.run, "dev", str(best.step), between, f"{best.loss:.4f}", against, turned)
        )
        rows += [
            ("", each.name, "", "", f"{each.loss:.4f}", estimated(each.change), "")
            for each in sweep.reported
        ]
    return Table(
        key="sweep",
        title="Lowest loss on dev text, and that step on other texts",
        columns=("run", "text", "step", "95 %", "nats", "minus untouched", "worse from"),
        rows=tuple(rows),
        note="The step is chosen on dev text, which flatters it there; elsewhere it is reported. "
        "95 %: where it lies in draws of other documents. Worse from: where the loss stays above "
        "the lowest by more than its interval.",
        align=("left", "left", *(("right",) * 5)),
    )


def _group(group: GroupChange) -> tuple[str, ...]:
    """Heads, drifted, mean |Δ|; beside each what counts those alone that can change."""
    return (
        f"{group.heads} ({group.could_change})",
        str(group.drifted),
        f"{_mass(group.mean)} ({_mass(group.mean_could)})",
    )


def _worst(group: GroupChange) -> str:
    return _NOTHING if group.worst is None else f"{group.worst} {_signed(group.worst_change, 3)}"


def _sick(group: GroupChange) -> str:
    return f"+{group.newly_sick} −{group.left_sick}"


def _moment(found: Redistribution, place: int) -> str:
    epoch = f" ({found.epochs[place]:.2f})" if found.epochs else ""
    return f"{found.steps[place]}{epoch}"


def _spread(count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, _MOMENTS))})


def _mass(value: float) -> str:
    return _NOTHING if math.isnan(value) else f"{value:.4f}"


def _signed(value: float, digits: int) -> str:
    return _NOTHING if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")
