"""Statistics made by hand, for tests that need no model."""

from collections.abc import Sequence

import numpy as np

from headsurgeon.diagnosis import diagnose
from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.head_stats import HeadStats, Provenance
from headsurgeon.heads import QUANTILE_LEVELS, STATISTICS

PROVENANCE = Provenance(
    model="pico",
    corpus="text:none",
    split="dev",
    length=16,
    count=4,
    first_token="none",
    seed=0,
    corpus_hash="0" * 64,
    dtype="float32",
    attention="blocks",
)


def stats_of(
    mass: np.ndarray,
    entropy: np.ndarray | None = None,
    documents: Sequence[str] | None = None,
    slopes: Sequence[float] | None = None,
) -> HeadStats:
    """Statistics with the given mass [window, layer, head] and plausible numbers elsewhere."""
    windows, layers, heads = mass.shape
    values = {
        name: np.random.default_rng(index).random(mass.shape)
        for index, name in enumerate(STATISTICS)
    }
    values["first_token_mass"] = np.asarray(mass, dtype=np.float64)
    values["entropy"] = np.full(mass.shape, 2.0) if entropy is None else np.asarray(entropy)
    series = [2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)]
    names = documents or [f"document {index}" for index in range(windows)]
    return HeadStats(
        values=values,
        row_quantiles=np.random.default_rng(99).random((*mass.shape, len(QUANTILE_LEVELS))),
        documents=tuple(names),
        slopes=np.tile(np.array(slopes or series), (layers, 1)),
        null_mass=np.full((layers, heads), 0.1),
        provenance=PROVENANCE,
    )


def diagnosis_of(
    mass: Sequence[Sequence[float]],
    entropy: Sequence[Sequence[float]] | None = None,
    slopes: Sequence[float] | None = None,
) -> Diagnosis:
    """A diagnosis of two documents that agree on the given means [layer, head]."""
    twice = np.stack([np.array(mass)] * 2)
    entropies = None if entropy is None else np.stack([np.array(entropy)] * 2)
    return diagnose(stats_of(twice, entropies, slopes=slopes), draws=20)
