"""A diagnosis: the verdict of every head, how sure it is, and where the sick ones are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from headsurgeon.arguments import checked
from headsurgeon.bootstrap import DRAWS, mean_interval
from headsurgeon.diagnosis.band import SickBand, sick_band
from headsurgeon.diagnosis.diagnosis_file import BOUNDS, fields_of, write_diagnosis
from headsurgeon.diagnosis.verdicts import PROFILES, Thresholds, classify, verdicts_at
from headsurgeon.errors import SettingsError
from headsurgeon.files import header, read_json, without_nan
from headsurgeon.heads import NO_ATTENTION, SICK, STATISTICS, VERDICTS, HeadId, HeadStats, Verdict

if TYPE_CHECKING:
    import pandas

SWEEP: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Verdicts with their uncertainty.

    Attributes:
        stats: what was measured.
        thresholds: the limits of the verdicts.
        verdicts: `Verdict` of every head; `NO_ATTENTION` in layers that have none.
        mass_low, mass_high: 95 % interval of the mean mass over documents, fraction.
        entropy_low, entropy_high: 95 % interval of the mean entropy over documents, nats.
        draws: bootstrap draws behind the intervals.
        seed: seed of the bootstrap.

    With a single document the intervals are NaN, as they are in layers without attention.
    """

    stats: HeadStats
    thresholds: Thresholds
    verdicts: Shaped[np.ndarray, "layer head"]
    mass_low: Float[np.ndarray, "layer head"]
    mass_high: Float[np.ndarray, "layer head"]
    entropy_low: Float[np.ndarray, "layer head"]
    entropy_high: Float[np.ndarray, "layer head"]
    draws: int
    seed: int

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

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as plain data, null for NaN: a summary for readers, then the arrays."""
        stats, band = self.stats, self.sick_band
        content = {
            **header("diagnosis"),
            "provenance": asdict(stats.provenance) | {"lengths": list(stats.provenance.lengths)},
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
            "means": {name: stats.mean(name).tolist() for name in STATISTICS},
            **{name: getattr(self, name).tolist() for name in BOUNDS},
            "slopes": stats.slopes.tolist(),
            "null_mass": stats.null_mass.tolist(),
            "null_by_length": {
                str(length): null.tolist() for length, null in stats.null_by_length.items()
            },
            "documents": list(stats.documents),
            "values": {name: stats.values[name].tolist() for name in STATISTICS},
            "row_quantiles": stats.row_quantiles.tolist(),
        }
        return dict(without_nan(content))

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], name: str = "diagnosis") -> "Diagnosis":
        """The diagnosis that `to_dict` wrote.

        Raises:
            InputError: something is missing, of another type or shape, or what no diagnosis says: a
                share beyond 1, verdicts that are not those of the numbers. Names the place.
        """
        return cls(**fields_of(content, name))

    @checked
    def save(self, path: Path | str) -> None:
        """Writes diagnosis.json, atomically, with every list of numbers on one line."""
        write_diagnosis(self.to_dict(), path)

    @classmethod
    @checked
    def load(cls, path: Path | str) -> "Diagnosis":
        """Reads a diagnosis.json.

        Raises:
            InputError: no such file, another kind of file, a newer schema, or a damaged one.
        """
        return cls.from_dict(read_json(path, "diagnosis"), str(path))


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
    verdicts = classify(stats.first_token_mass, stats.entropy, thresholds, stats.attends)
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
        verdicts=verdicts,
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
