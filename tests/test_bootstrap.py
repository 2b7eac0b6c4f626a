"""Claims about the bootstrap: what its intervals hold, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon import bootstrap
from headsurgeon.bootstrap import mean_interval
from headsurgeon.errors import SettingsError


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        interval = mean_interval(rng.normal(size=40), draws=500, rng=rng)
        covered += bool(interval.low <= 0.0 <= interval.high)
    # a percentile interval of 40 units is a little too narrow: 0.93 ± 0.03
    assert 0.90 <= covered / 300 <= 0.97


def test_the_interval_of_normal_data_is_that_of_the_formula() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    interval = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    np.testing.assert_allclose(interval.low, values.mean() - half, atol=0.02)
    np.testing.assert_allclose(interval.high, values.mean() + half, atol=0.02)


def test_the_mean_is_weighted() -> None:
    interval = mean_interval(np.array([[1.0], [4.0]]), weights=np.array([300, 100]))
    assert interval.mean.tolist() == [1.75]


def test_a_weighted_draw_is_the_ratio_of_sums() -> None:
    """A unit of ten times the weight dominates every draw in which it occurs."""
    values = np.array([0.0, 1.0])
    interval = mean_interval(values, weights=np.array([1.0, 10.0]), draws=2000, level=0.4)
    # draws are (0, 0), (0, 1), (1, 1) in the ratio 1 : 2 : 1; the inner 40 % are the mixed ones
    np.testing.assert_allclose([interval.low, interval.high], 10.0 / 11.0)


@given(
    units=st.integers(2, 12),
    heads=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_bounds_are_ordered_and_within_the_values(units: int, heads: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(units, 2, heads))
    interval = mean_interval(values, draws=50)
    assert interval.mean.shape == interval.low.shape == (2, heads)
    assert np.all(interval.low <= interval.high)
    assert np.all(interval.low >= values.min(axis=0) - 1e-12)
    assert np.all(interval.high <= values.max(axis=0) + 1e-12)


def test_a_single_unit_has_a_mean_and_no_interval() -> None:
    interval = mean_interval(np.array([[0.2, 0.7]]))
    assert interval.mean.tolist() == [0.2, 0.7]
    assert np.isnan(interval.low).all()
    assert np.isnan(interval.high).all()


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=(7, 9))
    weights = np.arange(1.0, 8.0)
    whole = mean_interval(values, weights, draws=60)
    monkeypatch.setattr(bootstrap, "_BLOCK", 100)
    parts = mean_interval(values, weights, draws=60)
    np.testing.assert_allclose(parts.low, whole.low, rtol=1e-12)
    np.testing.assert_allclose(parts.high, whole.high, rtol=1e-12)


def test_the_seed_decides_the_draws() -> None:
    values = np.random.default_rng(3).normal(size=20)
    assert mean_interval(values, rng=5).low == mean_interval(values, rng=5).low
    assert mean_interval(values, rng=5).low != mean_interval(values, rng=6).low


def test_pairing_removes_what_documents_have_in_common() -> None:
    rng = np.random.default_rng(4)
    hard = rng.normal(scale=5.0, size=50)
    before, after = hard + 0.1, hard + rng.normal(scale=0.01, size=50)
    difference = mean_interval(before - after)
    assert difference.low > 0.0
    assert mean_interval(before).low < mean_interval(after).high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": np.zeros((0, 2))}, "at least one unit"),
        ({"values": np.zeros(2), "weights": np.array([1.0, 0.0])}, "2 positive numbers"),
        ({"values": np.zeros(2), "weights": np.array([1.0, np.nan])}, "2 positive numbers"),
        ({"values": np.zeros(2), "draws": 0}, "draws: expected at least 1"),
        ({"values": np.zeros(2), "level": 1.0}, "level: expected a number between 0 and 1"),
    ],
)
def test_bad_input_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        mean_interval(**arguments)
