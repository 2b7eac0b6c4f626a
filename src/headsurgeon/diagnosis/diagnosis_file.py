"""diagnosis.json: everything a diagnosis holds, exact, in one file that other tools can read.

The values of every window are kept at full precision, about 20 bytes for each of 14 numbers per
window and head (6 MB for 384 heads and 64 windows), so that what is loaded equals what was saved
and every later stage can compute its own intervals from it. A summary for readers comes first; it
follows from the rest, and is computed again when the file is read. Null stands for NaN.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from headsurgeon.files import header, without_nan, write_text
from headsurgeon.head_stats import HeadStats

BOUNDS = ("mass_low", "mass_high", "entropy_low", "entropy_high")
_SUMMARY = (
    *("counts", "sick", "sick_band", "per_index", "per_layer", "sweep", "verdicts", "borderline"),
    "means",
)
_SHARES = (
    *("first_token_mass", "first_token_mass_after_row0", "sink_rows"),
    *("previous_token_mass", "local_mass"),
)
# sums of probabilities in fp32
_ROUNDING = 1e-3
_LIST_OF_SCALARS = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")


def as_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """The plain data of a file as the fields of a diagnosis; the statistics are one of them."""
    stats = {name: content[name] for name in HeadStats.model_fields if name in content}
    own = {key: content[key] for key in content if key not in (*stats, *_SUMMARY)}
    return {"stats": stats, **own}


def check_numbers(stats: HeadStats, bounds: Mapping[str, Float[np.ndarray, "layer head"]]) -> None:
    """Raises `ValueError` for what no measurement can have found.

    Args:
        bounds: those of the intervals, by the names of `BOUNDS`.
    """
    for name in _SHARES:
        if np.any((stats.values[name] < 0.0) | (stats.values[name] > 1.0 + _ROUNDING)):
            raise ValueError(f"values.{name}: shares lie between 0 and 1")
    for name, value in stats.values.items():
        if not np.isfinite(value[:, stats.attends]).all():
            raise ValueError(f"values.{name}: null in a layer that has attention")
    if not np.isfinite(stats.slopes).all():
        raise ValueError("slopes: expected finite numbers")
    for name in ("mass", "entropy"):
        low, high = bounds[f"{name}_low"], bounds[f"{name}_high"]
        if np.isinf([low, high]).any() or np.any(low > high):
            raise ValueError(f"{name}_low, {name}_high: expected finite numbers, low below high")


def write_diagnosis(content: Mapping[str, Any], path: Path | str) -> None:
    """Writes the plain data of a diagnosis, every list of numbers on one line."""
    complete = without_nan({**header("diagnosis"), **content})
    text = json.dumps(complete, indent=1, ensure_ascii=False)
    # no JSON string holds a raw line break, so only the layout is changed
    lines = _LIST_OF_SCALARS.sub(lambda match: "[" + re.sub(r"\n\s+", " ", match[1]) + "]", text)
    write_text(path, lines + "\n")
