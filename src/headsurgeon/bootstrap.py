"""Bootstrap: how sure a weighted mean over units such as documents is.

Windows of one document are alike, so they are not independent; documents are what is resampled
(percentile bootstrap; Efron & Tibshirani 1993, *An Introduction to the Bootstrap*, chapters 12 and
13). Needs numpy alone.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from headsurgeon.errors import SettingsError

DRAWS = 10_000
LEVEL = 0.95
# Numbers held at once by one block of draws × columns; 32 MB of float64.
_BLOCK = 4_000_000


def mean_interval(
    values: Float[np.ndarray, "unit *rest"],
    weights: Float[np.ndarray, " unit"] | Int[np.ndarray, " unit"] | None = None,
    draws: int = DRAWS,
    level: float = LEVEL,
    rng: np.random.Generator | int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weighted mean over units with a percentile-bootstrap interval.

    Every entry is computed from the same draws, so entries may be compared with each other.

    Args:
        values: one value per unit and entry, in any unit of measure.
        weights: positive weight per unit, such as its tokens; None weighs all alike.
        draws: how many times the units are drawn with replacement.
        level: coverage of the interval, between 0 and 1.
        rng: numpy generator, or the seed of a new one.

    Returns:
        Mean, lower and upper bound, each of the shape of one unit's values. With a single unit
        nothing can be said about other units: NaN bounds.

    Raises:
        SettingsError: no unit, weights that are not positive, draws or level out of range.
    """
    weights = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    check_units(len(values), weights, draws, level)
    columns = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    mean = weights @ columns / weights.sum()
    bounds = np.full((2, columns.shape[1]), np.nan)
    if len(values) > 1:
        tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
        drawn = resamples(len(values), draws, np.random.default_rng(rng))
        width = max(1, _BLOCK // draws)
        for start in range(0, columns.shape[1], width):
            block = columns[:, start : start + width]
            means = np.concatenate(list(_means(drawn, weights, block)))
            bounds[:, start : start + width] = np.quantile(means, tails, axis=0)
    shape = values.shape[1:]
    return mean.reshape(shape), bounds[0].reshape(shape), bounds[1].reshape(shape)


def check_units(units: int, weights: Float[np.ndarray, " given"], draws: int, level: float) -> None:
    """Raises `SettingsError`, which lists what cannot be drawn from."""
    faults = []
    if units < 1:
        faults.append("values: expected at least one unit (document), got none")
    if weights.shape != (units,) or not np.all((weights > 0) & np.isfinite(weights)):
        faults.append(f"weights: expected {units} positive numbers, got {weights.tolist()}")
    if draws < 1:
        faults.append(f"draws: expected at least 1, got {draws}")
    if not 0.0 < level < 1.0:
        faults.append(f"level: expected a number between 0 and 1, got {level}")
    if faults:
        raise SettingsError("; ".join(faults))


def resamples(units: int, draws: int, rng: np.random.Generator) -> Int[np.ndarray, "draw unit"]:
    """How often each unit occurs in each draw; drawn in blocks and kept in four bytes each."""
    counts = np.empty((draws, units), dtype=np.int32)
    step = max(1, _BLOCK // units)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        counts[start : start + size] = rng.multinomial(units, np.full(units, 1.0 / units), size)
    return counts


def _means(
    counts: Int[np.ndarray, "draw unit"],
    weights: Float[np.ndarray, " unit"],
    block: Float[np.ndarray, "unit column"],
) -> Iterator[Float[np.ndarray, "some column"]]:
    """The weighted means of the draws, a block of draws at a time."""
    step = max(1, _BLOCK // len(weights))
    for start in range(0, len(counts), step):
        drawn = counts[start : start + step] * weights
        yield drawn @ block / drawn.sum(axis=1, keepdims=True)
