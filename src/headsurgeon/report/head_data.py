"""The numbers behind a page's head map, as plain data for its script, within a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from headsurgeon.heads import HeadId
from headsurgeon.printable import printable
from headsurgeon.report.head_moments import HeadMoments
from headsurgeon.report.quantised import pack

Scale = Literal["share", "range", "signed"]


@dataclass(frozen=True)
class Shown:
    """How a statistic is shown: its name, its unit, the distance of its values, its colours.

    `scale`: `share` from 0 to 1, `range` from 0 to the largest, `signed` about 0.
    """

    label: str
    unit: str
    step: float
    digits: int
    scale: Scale = "range"


SHOWN: dict[str, Shown] = {
    "mass": Shown("mass on the first token", "", 0.001, 3, "share"),
    "entropy": Shown("entropy", "nats", 0.01, 2),
    "distance": Shown("mean distance", "tokens", 0.1, 1),
    "norm": Shown("output norm", "× layer mean", 0.01, 2),
    "cost_zero": Shown("ablation cost (zero)", "nats", 0.0001, 4, "signed"),
    "cost_mean": Shown("ablation cost (mean)", "nats", 0.0001, 4, "signed"),
    "slope": Shown("ALiBi slope", "", 0.0001, 4),
    "null": Shown("null: mass of an untrained head", "", 0.001, 3, "share"),
}
# of the changing numbers of all models together, and of one model
_LEAST_MOMENTS = 2


def head_data(
    models: Sequence[HeadMoments], numbers: int, maps: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The models as plain data, with as many moments and maps as there is room for.

    Args:
        models: what is to be shown.
        numbers: how many changing numbers there may be, over all models.
        maps: how many attention maps there may be.

    Returns:
        An entry for each model, and what had to be left out, in words.
    """
    kept, remarks = _fitting(models, numbers)
    with_maps = [model for model in kept if model.samples]
    each = maps // max(1, sum(len(model.samples) for model in with_maps))
    return [_entry(model, each) for model in kept], remarks


def _fitting(models: Sequence[HeadMoments], numbers: int) -> tuple[list[HeadMoments], list[str]]:
    """The models that fit, each with as many moments as all can have."""
    least = [model.thinned(_LEAST_MOMENTS).size for model in models]
    kept: list[HeadMoments] = []
    room = numbers
    for model, size in zip(models, least, strict=True):
        if kept and size > room:
            break
        kept.append(model)
        room -= size
    remarks = []
    if len(kept) < len(models):
        remarks.append(
            f"The map shows {len(kept)} of {len(models)} models; the others are in their files."
        )
    most = max((len(model.moments) for model in kept), default=0)
    while most > _LEAST_MOMENTS and sum(model.thinned(most).size for model in kept) > numbers:
        most = max(_LEAST_MOMENTS, int(0.9 * most))
    thinned = [model.thinned(most) for model in kept]
    if any(len(a.moments) < len(b.moments) for a, b in zip(thinned, kept, strict=True)):
        remarks.append(
            f"Of the moments that were measured {most} of each model are shown; all are in its log."
        )
    return thinned, remarks


def _entry(model: HeadMoments, maps: int) -> dict[str, Any]:
    layers, heads = model.shape
    limits = model.thresholds
    bounds = {"mass": (limits.sink, limits.dead), "entropy": (limits.low_entropy,)}
    series = {**model.values, **{name: value[None] for name, value in model.fixed.items()}}
    stats = {}
    for name, shown in SHOWN.items():
        if name not in series or not np.isfinite(series[name]).any():
            continue
        values = series[name].reshape(len(series[name]), layers * heads)
        packed = pack(values, shown.step, bounds.get(name, ()))
        stats[name] = {
            "label": shown.label,
            "unit": shown.unit,
            "digits": shown.digits,
            "scale": shown.scale,
            "moves": len(values) > 1,
            "low": packed.low,
            "step": packed.step,
            "text": packed.text,
        }
    fixed = model.cannot_change
    return {
        "name": printable(model.name),
        "about": printable(model.about),
        "shape": [layers, heads],
        "moments": [
            [printable(each.label), each.step, printable(each.remark)] for each in model.moments
        ],
        "stats": stats,
        "limits": [limits.sink, limits.dead, limits.low_entropy],
        "operated": _places(model.operated, heads),
        "watched": _places(model.watched, heads),
        "fixed": [] if fixed is None else np.flatnonzero(fixed).tolist(),
        "recovered": {name: printable(said) for name, said in model.recovered.items()},
        "samples": [
            {
                "name": printable(name),
                "about": printable(f"{sample.corpus}, {sample.split} split"),
                "tokens": [printable(token) for token in sample.tokens],
                "maps": {str(head): text for head, text in list(sample.maps.items())[:maps]},
            }
            for name, sample in model.samples.items()
        ],
    }


def _places(heads: Sequence[HeadId], width: int) -> list[int]:
    return [head.layer * width + head.head for head in heads]
