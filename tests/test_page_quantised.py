"""Packed series come back within half a step, in few characters, and cross no threshold."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headsurgeon.report.quantised import ALPHABET, pack, unpack

VALUES = st.floats(-3.0, 900.0) | st.just(float("nan")) | st.sampled_from([0.5, 0.5001, 0.95])


@given(arrays(np.float64, (5, 4), elements=VALUES))
def test_values_come_back_within_half_a_step(values: np.ndarray) -> None:
    packed = pack(values, 0.5)
    back = unpack(packed, 5)
    assert np.array_equal(np.isnan(back), np.isnan(values))
    assert np.nanmax(np.abs(back - values), initial=0.0) <= packed.step / 2 + 1e-9
    assert not set(packed.text) - set(ALPHABET)


@given(arrays(np.float64, (6, 3), elements=st.floats(0.0, 1.0)))
def test_rounding_crosses_no_threshold(values: np.ndarray) -> None:
    back = np.round(unpack(pack(values, 0.001, (0.5, 0.95)), 6), 9)
    for limit in (0.5, 0.95):
        assert np.array_equal(back > limit, values > limit)


def test_wide_ranges_take_a_coarser_step() -> None:
    values = np.array([[0.0, 3.0], [1e6, 2.0]])
    packed = pack(values, 0.1)
    assert packed.step > 0.1
    assert np.allclose(unpack(packed, 2), values, atol=packed.step / 2)


def test_what_does_not_change_takes_two_characters() -> None:
    assert len(pack(np.full((80, 1), 0.25), 0.001).text) == 3 + 2
    assert len(pack(np.full((300, 1), np.nan), 0.001).text) <= 10
    slow = 0.2 + 0.001 * np.arange(100)[:, None]
    assert len(pack(slow, 0.001).text) == 3 + 99


def test_no_character_has_to_be_escaped() -> None:
    assert len(set(ALPHABET)) == len(ALPHABET) == 87
    assert not set(ALPHABET) & set("<>&\"'\\ ")
