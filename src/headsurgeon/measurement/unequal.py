"""Statistics of texts of unequal length: each length is measured by itself, then put together."""

from collections.abc import Callable

import numpy as np

from headsurgeon.data import Texts, Windows
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import STATISTICS


def of_texts(texts: Texts, measure: Callable[[Windows], HeadStats]) -> HeadStats:
    """One measurement of all texts, in their order.

    Mass and entropy depend on the length even in a head that was never trained, so the null is kept
    for each length; the mean null counts every text once, as the mean of every statistic does.

    Args:
        measure: measures windows of equal length.
    """
    parts = [(places, measure(part)) for places, part in texts.by_length()]
    first = parts[0][1]
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    lengths = texts.lengths
    nulls = {stats.provenance.length: stats.null_mass for _, stats in parts}
    provenance = first.provenance.replace(count=len(texts), length=max(lengths))
    if len(parts) > 1:
        provenance = provenance.replace(lengths=lengths)
    return HeadStats(
        values={
            name: np.concatenate([stats.values[name] for _, stats in parts])[order]
            for name in STATISTICS
        },
        row_quantiles=np.concatenate([stats.row_quantiles for _, stats in parts])[order],
        documents=texts.documents,
        slopes=first.slopes,
        null_mass=np.mean([nulls[length] for length in lengths], axis=0),
        provenance=provenance,
        null_by_length=nulls if len(parts) > 1 else {},
    )
