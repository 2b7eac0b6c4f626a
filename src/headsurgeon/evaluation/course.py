"""How a number moves over the evaluations of a run: its shape, its trend, what moves with it.

The limits are those of the released code of arXiv:2603.09616 (`analyze_frozen_drift.py`), which
looked at five checkpoints three epochs apart. It calls it a change of sign when one step rises by
more than 0.005 and the next does not, so that a rise, a rest and a rise count as two of them; that
is kept, since its counts would not be comparable otherwise.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

Shape = Literal[
    "stable",
    "rising",
    "falling",
    "plateau",
    "oscillating",
    "mixed",
    "cannot change",
    "too few moments",
]
Trend = Literal["spreading", "recovering", "stable", "cannot change", "too few moments"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
# fractions of attention
STABLE, STEP, RANGE, TREND = 0.03, 0.005, 0.03, 0.02
FEWEST_OF_A_SHAPE, FEWEST_OF_A_TREND = 3, 2


def shape_of(changes: Float[np.ndarray, " moment"] | Sequence[float]) -> Shape:
    """The shape of a head's change of mass against the untouched model, fraction, over time.

    `stable`: never 0.03 or more from the untouched model; `rising` and `falling`: every step by
    more than 0.005 (the paper: monotonic); `plateau`: all within 0.03 of each other; `oscillating`:
    two or more changes of sign, see above; else `mixed`. The first that holds counts.
    """
    values = np.asarray(changes, dtype=np.float64)
    if len(values) < FEWEST_OF_A_SHAPE:
        return "too few moments"
    if np.abs(values).max() < STABLE:
        return "stable"
    steps = np.diff(values)
    if (steps > STEP).all():
        return "rising"
    if (steps < -STEP).all():
        return "falling"
    if np.ptp(values) < RANGE:
        return "plateau"
    rises = steps > STEP
    return "oscillating" if (rises[1:] != rises[:-1]).sum() >= 2 else "mixed"


def trend_of(means: Float[np.ndarray, " moment"] | Sequence[float]) -> Trend:
    """Whether a mean of |change of mass|, fraction, grew or shrank from first to last by > 0.02."""
    if len(means) < FEWEST_OF_A_TREND:
        return "too few moments"
    difference = float(means[-1]) - float(means[0])
    if difference > TREND:
        return "spreading"
    return "recovering" if difference < -TREND else "stable"


def correlations(
    courses: Float[np.ndarray, "course moment"],
) -> Float[np.ndarray, "course course"]:
    """Pearson's r between courses over time; NaN where one never moves, or of fewer than three.

    Of few moments r says little: of three that are independent |r| > 0.99 has a chance of 9 %.
    """
    count, moments = courses.shape
    correlation = np.full((count, count), np.nan)
    if moments < FEWEST_OF_A_SHAPE:
        return correlation
    centred = courses - courses.mean(axis=1, keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=1))
    moving = np.flatnonzero(norms > 1e-10)
    units = centred[moving] / norms[moving, None]
    correlation[np.ix_(moving, moving)] = np.clip(units @ units.T, -1.0, 1.0)
    return correlation
