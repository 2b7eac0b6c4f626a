"""Pairing the heads of one layer by slope."""

import numpy as np
from jaxtyping import Float, Int

# A slope of 0 (no position bias) lies below every ALiBi slope, which are 2⁻⁸ or more.
_FLOOR = 2.0**-24
_TIE = 1e-6


def nearest(
    slopes: Float[np.ndarray, " head"],
    targets: Int[np.ndarray, " target"],
    pool: Int[np.ndarray, " candidate"],
) -> tuple[int, ...]:
    """Heads of `pool`, one for each target and each once, whose slopes are nearest.

    Slopes are a geometric series, so distance is that of their logarithms; the distance of indices
    decides ties. The sum over all pairs is the smallest possible: sorted by slope, best pairs never
    cross, so a table over (targets, candidates) finds it.

    Args:
        slopes: effective slope per head.
        targets: heads to be matched.
        pool: heads to choose from; when it has fewer than targets, all of it is chosen.

    Returns:
        The chosen heads, sorted.
    """
    if len(pool) <= len(targets):
        return tuple(sorted(int(head) for head in pool))
    places = np.log2(np.maximum(slopes, _FLOOR))
    rows = sorted((int(head) for head in targets), key=lambda head: (places[head], head))
    columns = sorted((int(head) for head in pool), key=lambda head: (places[head], head))
    distance = np.array(
        [[abs(places[a] - places[b]) + _TIE * abs(a - b) for b in columns] for a in rows]
    ).reshape(len(rows), len(columns))
    # best[i, j]: smallest sum for the first i targets within the first j candidates
    best = np.full((len(rows) + 1, len(columns) + 1), np.inf)
    best[0] = 0.0
    for i in range(1, len(rows) + 1):
        for j in range(i, len(columns) + 1):
            best[i, j] = min(best[i, j - 1], best[i - 1, j - 1] + distance[i - 1, j - 1])
    matches = []
    i, j = len(rows), len(columns)
    while i:
        if best[i, j] < best[i, j - 1]:
            matches.append(columns[j - 1])
            i -= 1
        j -= 1
    return tuple(sorted(matches))
