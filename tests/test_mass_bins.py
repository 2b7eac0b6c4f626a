"""Every picture of masses counts its heads alike."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headsurgeon.report.mass_bins import mass_bins


def test_a_head_at_a_limit_is_counted_with_the_healthy_ones() -> None:
    masses = np.array([0.0, 0.05, 0.5, 0.5004, 0.95, 1.0, 1.0000002, -1e-9, np.nan])
    counts = mass_bins(masses, 20)
    assert counts.sum() == 8
    assert counts[:10].sum() == 4  # 0, 0.05, 0.5 and what rounding took below 0
    assert counts[10] == 1


@given(
    arrays(np.float64, st.integers(0, 30), elements=st.floats(0, 1)),
    st.integers(1, 60),
)
def test_each_head_is_between_the_edges_of_its_part(
    masses: np.ndarray[tuple[int], np.dtype[np.float64]], bins: int
) -> None:
    counts = mass_bins(masses, bins)
    assert counts.shape == (bins,)
    edges = np.linspace(0.0, 1.0, bins + 1)
    for number, (low, high) in zip(counts, pairwise(edges), strict=True):
        inside = (masses > low + 1e-12) & (masses < high - 1e-12)
        assert inside.sum() <= number
    assert counts.sum() == len(masses)
