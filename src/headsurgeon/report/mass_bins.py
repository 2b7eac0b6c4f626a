"""Heads counted by their mass on the first token, for every picture of masses."""

import numpy as np
from jaxtyping import Float, Int


def mass_bins(masses: Float[np.ndarray, "..."], bins: int) -> Int[np.ndarray, " bin"]:
    """How many heads there are in each of equal parts of 0 to 1.

    The upper edge of a part belongs to it, as a head is sick above a limit and not at it. A mass
    that rounding carried beyond 0 or 1 counts in the part beside it; unknown ones (NaN) are left
    out.
    """
    known = masses[np.isfinite(masses)]
    places = np.clip(np.ceil(known * bins).astype(np.int64) - 1, 0, bins - 1)
    return np.bincount(places, minlength=bins)
