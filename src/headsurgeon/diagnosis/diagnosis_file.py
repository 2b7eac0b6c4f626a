"""diagnosis.json: everything a diagnosis holds, exact, in one file that other tools can read.

The values of every window are kept at full precision, about 20 bytes for each of 14 numbers per
window and head (6 MB for 384 heads and 64 windows), so that what is loaded equals what was saved
and every later stage can compute its own intervals from it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from headsurgeon.attention_kinds import AttentionRan, ran_in_diagnosis
from headsurgeon.diagnosis.verdicts import Thresholds, classify
from headsurgeon.errors import InputError, ModelError, SettingsError
from headsurgeon.files import shorten, write_text
from headsurgeon.heads import QUANTILE_LEVELS, STATISTICS, HeadStats, Provenance

BOUNDS = ("mass_low", "mass_high", "entropy_low", "entropy_high")
_SHARES = (
    *("first_token_mass", "first_token_mass_after_row0", "sink_rows"),
    *("previous_token_mass", "local_mass"),
)
# sums of probabilities in fp32
_ROUNDING = 1e-3
Finite = Annotated[float, Field(allow_inf_nan=False)]
Layers = list[list[Finite | None]]
_LIST_OF_SCALARS = re.compile(r"\[\n\s+([^\[\]{}]*?)\n\s+\]")


def fields_of(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a diagnosis is made of, out of the plain data of its file.

    Raises:
        InputError: something is missing, of another type or shape, or what no diagnosis says. Names
            the place.
    """
    try:
        return _read(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]
        ]
        what = shorten("; ".join(faults), 300)
        raise InputError(f"{name} is damaged ({what}); write it again with diagnose") from error
    except (SettingsError, ModelError, ValueError) as error:
        what = shorten(str(error), 300)
        raise InputError(f"{name} is damaged ({what}); write it again with diagnose") from error


def write_diagnosis(content: Mapping[str, Any], path: Path | str) -> None:
    """Writes the plain data of a diagnosis, every list of numbers on one line."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # no JSON string holds a raw line break, so only the layout is changed
    lines = _LIST_OF_SCALARS.sub(lambda match: "[" + re.sub(r"\n\s+", " ", match[1]) + "]", text)
    write_text(path, lines + "\n")


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Provenance(_Read):
    model: str
    corpus: str
    split: str
    length: int = Field(ge=2, lt=2**31)
    count: int = Field(ge=1, lt=2**31)
    first_token: str
    seed: int = Field(ge=0, lt=2**63)
    corpus_hash: str
    dtype: str
    attention: Annotated[AttentionRan, BeforeValidator(ran_in_diagnosis)]
    family: str = ""
    packing: str = "documents"
    lengths: list[Annotated[int, Field(ge=2, lt=2**31)]] = []


class _Thresholds(_Read):
    sink: Finite
    dead: Finite
    low_entropy: Finite


class _File(_Read):
    """What the file holds; null, for NaN, where there is no attention or interval."""

    kind: str
    schema_: int = Field(alias="schema")
    headsurgeon: str
    provenance: _Provenance
    thresholds: _Thresholds
    draws: int = Field(ge=1, le=10**7)
    seed: int = Field(ge=0, lt=2**63)
    verdicts: list[list[Literal["healthy", "sink", "dead", "low-entropy", "no attention"]]]
    mass_low: Layers
    mass_high: Layers
    entropy_low: Layers
    entropy_high: Layers
    slopes: list[list[Finite]]
    null_mass: Layers
    null_by_length: dict[Annotated[str, Field(pattern="^[1-9][0-9]{0,9}$")], Layers] = {}
    documents: list[str] = Field(min_length=1)
    values: dict[str, list[Layers]]
    row_quantiles: list[list[list[list[Finite | None]]]]
    # for readers; all of it follows from the above
    counts: Any = None
    sick: Any = None
    sick_band: Any = None
    per_index: Any = None
    per_layer: Any = None
    sweep: Any = None
    borderline: Any = None
    means: Any = None


def _read(content: Mapping[str, Any]) -> dict[str, Any]:
    file = _File.model_validate(dict(content))
    if set(file.values) != set(STATISTICS):
        raise ValueError(f"values: expected {', '.join(STATISTICS)}, got {', '.join(file.values)}")
    slopes = _array(
        "slopes", file.slopes, (len(file.slopes), len(file.slopes[0]) if file.slopes else 0)
    )
    shape = slopes.shape
    every = (len(file.documents), *shape)
    if 0 in shape:
        raise ValueError(f"slopes: expected [layer, head], got shape {list(shape)}")
    stats = HeadStats(
        values={name: _array(name, file.values[name], every) for name in STATISTICS},
        row_quantiles=_array("row_quantiles", file.row_quantiles, (*every, len(QUANTILE_LEVELS))),
        documents=tuple(file.documents),
        slopes=slopes,
        null_mass=_array("null_mass", file.null_mass, shape),
        provenance=Provenance(
            **file.provenance.model_dump(exclude={"lengths"}),
            lengths=tuple(file.provenance.lengths),
        ),
        null_by_length={
            int(length): _array(f"null_by_length.{length}", null, shape)
            for length, null in file.null_by_length.items()
        },
    )
    thresholds = Thresholds(**file.thresholds.model_dump())
    bounds = {name: _array(name, getattr(file, name), shape) for name in BOUNDS}
    _check_numbers(stats, bounds)
    verdicts = classify(stats.first_token_mass, stats.entropy, thresholds, stats.attends)
    if verdicts.tolist() != file.verdicts:
        raise ValueError("verdicts: they are not those of the masses and entropies beside them")
    return {
        "stats": stats,
        "thresholds": thresholds,
        "verdicts": verdicts,
        "draws": file.draws,
        "seed": file.seed,
        **bounds,
    }


def _check_numbers(stats: HeadStats, bounds: Mapping[str, Float[np.ndarray, "layer head"]]) -> None:
    """What no measurement can have found."""
    for name in _SHARES:
        if np.any((stats.values[name] < 0.0) | (stats.values[name] > 1.0 + _ROUNDING)):
            raise ValueError(f"values.{name}: shares lie between 0 and 1")
    for name, value in stats.values.items():
        if not np.isfinite(value[:, stats.attends]).all():
            raise ValueError(f"values.{name}: null in a layer that has attention")
    for name in ("mass", "entropy"):
        if np.any(bounds[f"{name}_low"] > bounds[f"{name}_high"]):
            raise ValueError(f"{name}_low lies above {name}_high")


def _array(name: str, numbers: Any, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    # null, which stands for NaN, becomes NaN again
    array = np.array(numbers, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
    return array
