"""diagnosis.json: everything a diagnosis holds, exact, in one file that other tools can read.

The values of every window are kept at full precision, about 20 bytes for each of 14 numbers per
window and head (6 MB for 384 heads and 64 windows), so that what is loaded equals what was saved
and every later stage can compute its own intervals from it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from headsurgeon.diagnose.diagnosis import Diagnosis
from headsurgeon.diagnose.verdicts import Thresholds
from headsurgeon.errors import InputError
from headsurgeon.files import header, read_json, without_nan, write_text
from headsurgeon.heads import STATISTICS, HeadStats, Provenance

_BOUNDS = ("mass_low", "mass_high", "entropy_low", "entropy_high")
_LIST_OF_SCALARS = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")


def to_dict(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain lists, numbers and text: a summary for readers, then the arrays."""
    stats, band = diagnosis.stats, diagnosis.sick_band
    return {
        **header("diagnosis"),
        "provenance": asdict(stats.provenance),
        "thresholds": diagnosis.thresholds.to_dict(),
        "draws": diagnosis.draws,
        "seed": diagnosis.seed,
        "counts": diagnosis.counts,
        "sick": [str(head) for head in diagnosis.sick],
        "sick_band": None if band is None else asdict(band),
        "per_index": diagnosis.per_index.tolist(),
        "per_layer": diagnosis.per_layer.tolist(),
        "sweep": {str(limit): count for limit, count in diagnosis.sweep().items()},
        "verdicts": diagnosis.verdicts.tolist(),
        "borderline": diagnosis.borderline.tolist(),
        "means": {name: stats.mean(name).tolist() for name in STATISTICS},
        **{name: getattr(diagnosis, name).tolist() for name in _BOUNDS},
        "slopes": stats.slopes.tolist(),
        "null_mass": stats.null_mass.tolist(),
        "documents": list(stats.documents),
        "values": {name: stats.values[name].tolist() for name in STATISTICS},
        "row_quantiles": stats.row_quantiles.tolist(),
    }


def from_dict(content: Mapping[str, Any], name: str = "diagnosis") -> Diagnosis:
    """The diagnosis that `to_dict` wrote.

    Raises:
        InputError: something is missing or of the wrong shape.
    """
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{name} is damaged ({what}); write it again with diagnose") from error


def save(diagnosis: Diagnosis, path: Path | str) -> None:
    """Writes the diagnosis to `path`, atomically, with every list of numbers on one line."""
    content = json.dumps(without_nan(to_dict(diagnosis)), indent=1, ensure_ascii=False)
    # no JSON string holds a raw line break, so only the layout is changed
    lines = _LIST_OF_SCALARS.sub(lambda found: "[" + re.sub(r"\n\s+", " ", found[1]) + "]", content)
    write_text(path, lines + "\n")


def load(path: Path | str) -> Diagnosis:
    """Reads a diagnosis.json.

    Raises:
        InputError: no such file, another kind of file, a newer schema, or a damaged one.
    """
    return from_dict(read_json(path, "diagnosis"), str(path))


def _read(content: Mapping[str, Any]) -> Diagnosis:
    documents = tuple(str(name) for name in content["documents"])
    slopes = np.array(content["slopes"], dtype=np.float64)
    shape = slopes.shape
    if len(shape) != 2:
        raise ValueError(f"slopes: expected [layer, head], got shape {list(shape)}")
    every = (len(documents), *shape)
    stats = HeadStats(
        values={name: _array(content["values"], name, every) for name in STATISTICS},
        row_quantiles=_array(content, "row_quantiles", (*every, -1)),
        documents=documents,
        slopes=slopes,
        null_mass=_array(content, "null_mass", shape),
        provenance=Provenance(**content["provenance"]),
    )
    verdicts = np.array(content["verdicts"], dtype=str)
    if verdicts.shape != shape:
        raise ValueError(f"verdicts: expected shape {list(shape)}, got {list(verdicts.shape)}")
    return Diagnosis(
        stats=stats,
        thresholds=Thresholds(**content["thresholds"]),
        verdicts=verdicts,
        draws=int(content["draws"]),
        seed=int(content["seed"]),
        **{name: _array(content, name, shape) for name in _BOUNDS},
    )


def _array(
    content: Mapping[str, Any], name: str, shape: tuple[int, ...]
) -> Float[np.ndarray, "..."]:
    # null, which stands for NaN, becomes NaN again
    array = np.array(content[name], dtype=np.float64)
    wanted = tuple(array.shape[-1] if size == -1 and array.ndim else size for size in shape)
    if array.shape != wanted:
        raise ValueError(f"{name}: expected shape {list(wanted)}, got {list(array.shape)}")
    return array
