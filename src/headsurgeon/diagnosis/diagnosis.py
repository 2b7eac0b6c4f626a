"""A diagnosis: the verdict of every head, how sure it is, and where the sick ones are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from pydantic import Field, field_validator, model_serializer, model_validator

from headsurgeon.arguments import checked
from headsurgeon.bootstrap import DRAWS, mean_interval
from headsurgeon.diagnosis.band import SickBand, sick_band
from headsurgeon.diagnosis.diagnosis_file import (
    BOUNDS,
    as_fields,
    check_numbers,
    write_diagnosis,
)
from headsurgeon.diagnosis.verdicts import PROFILES, Thresholds, classify, verdicts_at
from headsurgeon.errors import SettingsError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import NO_ATTENTION, SICK, STATISTICS, VERDICTS, HeadId, Verdict
from headsurgeon.records import Seed
from headsurgeon.results import Array, Result, ShownInNotebooks

if TYPE_CHECKING:
    import pandas

SWEEP: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class Diagnosis(ShownInNotebooks, Result):
    """Verdicts with their uncertainty; `diagnosis.json` holds it with the statistics.

    Attributes:
        stats: what was measured.
        thresholds: the limits of the verdicts.
        mass_low, mass_high: 95 % interval of the mean mass over documents, fraction.
        entropy_low, entropy_high: 95 % interval of the mean entropy over documents, nats.
        draws: bootstrap draws behind the intervals.
        seed: seed of the bootstrap.

    With a single document the intervals are NaN, as they are in layers without attention.
    """

    kind: ClassVar[str] = "diagnosis"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    stats: HeadStats
    thresholds: Thresholds
    mass_low: Annotated[Float[np.ndarray, "layer head"], Array()]
    mass_high: Annotated[Float[np.ndarray, "layer head"], Array()]
    entropy_low: Annotated[Float[np.ndarray, "layer head"], Array()]
    entropy_high: Annotated[Float[np.ndarray, "layer head"], Array()]
    draws: Annotated[int, Field(ge=1, le=10**7)]
    seed: Seed

    @model_validator(mode="wrap")
    @classmethod
    def _of_file(cls, content: Any, build: Callable[[Any], "Diagnosis"]) -> "Diagnosis":
        if not isinstance(content, Mapping) or "stats" in content:
            return build(content)
        diagnosis = build(as_fields(content))
        check_numbers(diagnosis.stats, {name: getattr(diagnosis, name) for name in BOUNDS})
        if diagnosis.verdicts.tolist() != content.get("verdicts"):
            raise ValueError("verdicts: they are not those of the masses and entropies beside them")
        return diagnosis

    @field_validator(*BOUNDS)
    @classmethod
    def _of_every_head(cls, bound: np.ndarray, info: Any) -> np.ndarray:
        stats = info.data.get("stats")
        if stats is not None and bound.shape != stats.shape:
            raise ValueError(f"expected shape {list(stats.shape)}, got {list(bound.shape)}")
        return bound

    @model_serializer
    def _in_file_order(self) -> dict[str, Any]:
        band, stats = self.sick_band, self.stats.model_dump(mode="json")
        return {
            "provenance": stats.pop("provenance"),
            "thresholds": self.thresholds.model_dump(),
            "draws": self.draws,
            "seed": self.seed,
            "counts": self.counts,
            "sick": [str(head) for head in self.sick],
            "sick_band": None if band is None else asdict(band),
            "per_index": self.per_index.tolist(),
            "per_layer": self.per_layer.tolist(),
            "sweep": {str(limit): count for limit, count in self.sweep().items()},
            "verdicts": self.verdicts.tolist(),
            "borderline": self.borderline.tolist(),
            "means": {name: self.stats.mean(name).tolist() for name in STATISTICS},
            **{name: getattr(self, name).tolist() for name in BOUNDS},
            **stats,
        }

    @cached_property
    def verdicts(self) -> Shaped[np.ndarray, "layer head"]:
        """`Verdict` of every head; `NO_ATTENTION` in layers that have none."""
        stats = self.stats
        return classify(stats.first_token_mass, stats.entropy, self.thresholds, stats.attends)

    @cached_property
    def borderline(self) -> Bool[np.ndarray, "layer head"]:
        """Heads whose interval reaches into another verdict; none with a single document.

        A head is borderline if some corner of its box of mass interval × entropy interval has
        another verdict than the means have. The entropy of a sick head therefore never counts.
        """
        crossing = np.zeros(self.stats.shape, dtype=bool)
        for mass in (self.mass_low, self.mass_high):
            for entropy in (self.entropy_low, self.entropy_high):
                corner = verdicts_at(mass, entropy, self.thresholds)
                crossing |= (corner != self.verdicts) & np.isfinite(mass) & np.isfinite(entropy)
        return crossing

    @cached_property
    def is_sick(self) -> Bool[np.ndarray, "layer head"]:
        """Whether a head is a sink or dead."""
        return np.isin(self.verdicts, sorted(SICK))

    @property
    def heads(self) -> int:
        """Number of heads, in the layers that have attention."""
        return int((self.verdicts != NO_ATTENTION).sum())

    @property
    def sick(self) -> tuple[HeadId, ...]:
        """The sick heads, sorted."""
        return heads_where(self.is_sick)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Number of heads per verdict; their sum is `heads`."""
        return {verdict: int((self.verdicts == verdict).sum()) for verdict in VERDICTS}

    @property
    def per_index(self) -> Int[np.ndarray, " head"]:
        """Number of sick layers at each head index."""
        return np.asarray(self.is_sick.sum(axis=0))

    @property
    def per_layer(self) -> Int[np.ndarray, " layer"]:
        """Number of sick heads in each layer."""
        return np.asarray(self.is_sick.sum(axis=1))

    @property
    def sick_band(self) -> SickBand | None:
        """Where most sick heads are; None without any. See `band.sick_band`."""
        return sick_band(self.is_sick)

    @property
    def mass_slope_correlation(self) -> float | None:
        """Spearman's rank correlation of `first_token_mass` with the slope over all heads.

        Ranks, because slopes are spaced geometrically. None where all slopes or masses are alike.
        """
        import pandas

        attends = self.stats.attends
        mass = pandas.Series(self.stats.first_token_mass[attends].ravel()).rank().to_numpy()
        slope = pandas.Series(self.stats.slopes[attends].ravel()).rank().to_numpy()
        if np.ptp(mass) == 0 or np.ptp(slope) == 0:
            return None
        return float(np.corrcoef(mass, slope)[0, 1])

    def sweep(self, limits: Sequence[float] = SWEEP) -> dict[float, int]:
        """How many heads would be sick at each limit on the mass, fraction."""
        mass = self.stats.first_token_mass
        return {limit: int((mass > limit).sum()) for limit in limits}

    def verdict(self, head: HeadId) -> str:
        """The verdict of one head."""
        return str(self.verdicts[head])

    def to_frame(self) -> "pandas.DataFrame":
        """One row per head: name, verdict, intervals, borderline, then `HeadStats.to_frame`."""
        import pandas

        layer, head = np.indices(self.stats.shape)
        front = {
            "name": [f"L{a}H{b}" for a, b in zip(layer.ravel(), head.ravel(), strict=True)],
            "verdict": self.verdicts.ravel(),
            "borderline": self.borderline.ravel(),
            "first_token_mass_low": self.mass_low.ravel(),
            "first_token_mass_high": self.mass_high.ravel(),
            "entropy_low": self.entropy_low.ravel(),
            "entropy_high": self.entropy_high.ravel(),
        }
        return pandas.concat([pandas.DataFrame(front), self.stats.to_frame()], axis=1)

    @checked
    def save(self, path: Path | str) -> None:
        """Writes diagnosis.json, atomically, with every list of numbers on one line."""
        write_diagnosis(self.model_dump(mode="json"), path)


@checked
def diagnose(
    stats: HeadStats,
    thresholds: Thresholds = PROFILES["paper"],
    draws: int = DRAWS,
    seed: int = 0,
) -> Diagnosis:
    """Gives every head a verdict and an interval over documents.

    The mean is over windows, which have equally many tokens; documents are drawn with
    replacement, each with all its windows, so a document counts with the number of windows it gave.

    Args:
        stats: what was measured.
        thresholds: the limits of the verdicts.
        draws: bootstrap draws.
        seed: seed of the bootstrap.

    Raises:
        ModelError: a statistic is not a finite number.
        SettingsError: draws or seed out of range.
    """
    if seed < 0:
        raise SettingsError(f"seed: expected 0 or more, got {seed}")
    # refuses what is no number
    classify(stats.first_token_mass, stats.entropy, thresholds, stats.attends)
    documents = np.stack(
        [stats.per_document("first_token_mass"), stats.per_document("entropy")], axis=1
    )
    _, low, high = mean_interval(
        documents,
        weights=stats.document_weights.sum(axis=1),
        draws=draws,
        rng=np.random.default_rng(seed),
    )
    return Diagnosis(
        stats=stats,
        thresholds=thresholds,
        mass_low=low[0],
        mass_high=high[0],
        entropy_low=low[1],
        entropy_high=high[1],
        draws=draws,
        seed=seed,
    )


def heads_where(mask: Bool[np.ndarray, "layer head"]) -> tuple[HeadId, ...]:
    """The heads at which `mask` is true, sorted."""
    return tuple(HeadId(int(layer), int(head)) for layer, head in np.argwhere(mask))
