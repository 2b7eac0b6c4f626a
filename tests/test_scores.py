"""Claims about the bootstrap: what its intervals hold, and what it refuses."""

import numpy as np
import pytest
from beartype import beartype
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, jaxtyped

from headsurgeon import bootstrap
from headsurgeon.bootstrap import mean_interval
from headsurgeon.errors import InputError, SettingsError
from headsurgeon.scores import (
    Evaluation,
    crossed_difference,
    difference,
    difference_of_differences,
    recovered_share,
)


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        interval = mean_interval(rng.normal(size=40), draws=500, rng=rng)
        covered += bool(interval[1] <= 0.0 <= interval[2])
    # a percentile interval of 40 units is a little too narrow: 0.93 ± 0.03
    assert 0.90 <= covered / 300 <= 0.97


def test_the_interval_of_normal_data_is_that_of_the_formula() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    interval = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    np.testing.assert_allclose(interval[1], values.mean() - half, atol=0.02)
    np.testing.assert_allclose(interval[2], values.mean() + half, atol=0.02)


def test_the_mean_is_weighted() -> None:
    interval = mean_interval(np.array([[1.0], [4.0]]), weights=np.array([300, 100]))
    assert interval[0].tolist() == [1.75]


def test_a_weighted_draw_is_the_ratio_of_sums() -> None:
    """A unit of ten times the weight dominates every draw in which it occurs."""
    values = np.array([0.0, 1.0])
    interval = mean_interval(values, weights=np.array([1.0, 10.0]), draws=2000, level=0.4)
    # draws are (0, 0), (0, 1), (1, 1) in the ratio 1 : 2 : 1; the inner 40 % are the mixed ones
    np.testing.assert_allclose([interval[1], interval[2]], 10.0 / 11.0)


@given(
    units=st.integers(2, 12),
    heads=st.integers(1, 5),
    seed=st.integers(0, 100),
)
def test_bounds_are_ordered_and_within_the_values(units: int, heads: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(units, 2, heads))
    interval = mean_interval(values, draws=50)
    assert interval[0].shape == interval[1].shape == (2, heads)
    assert np.all(interval[1] <= interval[2])
    assert np.all(interval[1] >= values.min(axis=0) - 1e-12)
    assert np.all(interval[2] <= values.max(axis=0) + 1e-12)


def test_a_single_unit_has_a_mean_and_no_interval() -> None:
    interval = mean_interval(np.array([[0.2, 0.7]]))
    assert interval[0].tolist() == [0.2, 0.7]
    assert np.isnan(interval[1]).all()
    assert np.isnan(interval[2]).all()


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(size=(7, 9))
    weights = np.arange(1.0, 8.0)
    whole = mean_interval(values, weights, draws=60)
    monkeypatch.setattr(bootstrap, "_BLOCK", 100)
    parts = mean_interval(values, weights, draws=60)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-12)
    np.testing.assert_allclose(parts[2], whole[2], rtol=1e-12)


def test_the_seed_decides_the_draws() -> None:
    values = np.random.default_rng(3).normal(size=20)
    assert mean_interval(values, rng=5)[1] == mean_interval(values, rng=5)[1]
    assert mean_interval(values, rng=5)[1] != mean_interval(values, rng=6)[1]


def test_pairing_removes_what_documents_have_in_common() -> None:
    rng = np.random.default_rng(4)
    hard = rng.normal(scale=5.0, size=50)
    before, after = hard + 0.1, hard + rng.normal(scale=0.01, size=50)
    difference = mean_interval(before - after)
    assert difference[1] > 0.0
    assert mean_interval(before)[1] < mean_interval(after)[2]


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


# --- documents and seeds resampled ---------------------------------------------------------------


def evaluation(losses: np.ndarray) -> Evaluation:
    """Losses of documents of one token each."""
    names = tuple(f"document {index}" for index in range(len(losses)))
    one = np.ones(len(losses))
    return Evaluation(
        model="m",
        corpus="c",
        split="test",
        length=2,
        stride=2,
        corpus_hash="h",
        count=len(losses),
        first_token="none",
        seed=0,
        documents=names,
        document_nll=losses,
        document_tokens=one,
    )


def test_the_callers_own_axis_names_are_not_those_of_a_result() -> None:
    @jaxtyped(typechecker=beartype)
    def caller(values: Float[np.ndarray, " document"]) -> int:
        return len(evaluation(np.ones(len(values) + 3)).documents)

    assert caller(np.ones(2)) == 5


def arms(
    effect: float, documents: int, seeds: int, of_seeds: float, rng: np.random.Generator
) -> tuple[list[Evaluation], list[Evaluation]]:
    """A control, and an arm that differs by an effect, noise per seed and noise per document."""
    base = rng.normal(3.0, 0.5, documents)
    shared = rng.normal(0.0, 0.02, documents)
    first = [base + effect + shared + rng.normal(0.0, of_seeds) for _ in range(seeds)]
    return [evaluation(losses) for losses in first], [evaluation(base)] * seeds


def test_with_one_seed_the_interval_is_that_over_documents() -> None:
    first, second = arms(0.1, 40, 1, 0.0, np.random.default_rng(0))
    crossed = crossed_difference(first, second)
    paired = difference(first[0], second[0])
    assert crossed.value == pytest.approx(paired.value)
    assert crossed.low == pytest.approx(paired.low, abs=1e-3)
    assert crossed.high == pytest.approx(paired.high, abs=1e-3)


def test_seeds_that_disagree_widen_the_interval() -> None:
    widths = []
    for of_seeds in (0.0, 0.05):
        found = crossed_difference(*arms(0.1, 60, 5, of_seeds, np.random.default_rng(1)))
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_no_effect_is_called_one_no_more_often_than_its_level_says() -> None:
    rng = np.random.default_rng(2)
    called = 0
    for _ in range(200):
        found = crossed_difference(*arms(0.0, 60, 8, 0.01, rng), draws=400)
        called += found.above_zero or found.below_zero
    # 5 % are meant; eight seeds make the percentile interval somewhat short
    assert called <= 24


def test_arms_of_unequal_seeds_or_other_documents_are_refused() -> None:
    first, second = arms(0.1, 10, 2, 0.0, np.random.default_rng(3))
    with pytest.raises(InputError, match="pairs of evaluations, got 2 and 1"):
        crossed_difference(first, second[:1])
    with pytest.raises(InputError, match="got 0 and 0"):
        crossed_difference([], [])
    others, _ = arms(0.1, 11, 2, 0.0, np.random.default_rng(4))
    with pytest.raises(InputError, match="different windows"):
        crossed_difference(first, others)


def test_arms_that_do_not_differ_have_no_width() -> None:
    _, second = arms(0.0, 10, 2, 0.0, np.random.default_rng(5))
    same = crossed_difference(second, second)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("change", [{"draws": 0}, {"level": 1.0}])
def test_draws_and_level_out_of_range_are_refused(change: dict) -> None:
    first, second = arms(0.1, 10, 2, 0.0, np.random.default_rng(6))
    with pytest.raises(SettingsError, match="expected"):
        crossed_difference(first, second, **change)


def test_differences_of_other_documents_are_refused() -> None:
    here, elsewhere = evaluation(np.ones(3)), evaluation(np.ones(4))
    with pytest.raises(InputError, match="different windows"):
        difference(here, elsewhere)
    with pytest.raises(InputError, match="different windows"):
        difference_of_differences((here, here), (here, elsewhere))
    with pytest.raises(InputError, match="different windows"):
        recovered_share(here, here, elsewhere)


def test_the_share_recovered_is_that_of_the_gap_and_undefined_without_one() -> None:
    losses = np.linspace(2.0, 3.0, 20)
    sick, ceiling = evaluation(losses + 1.0), evaluation(losses)
    assert recovered_share(sick, evaluation(losses + 0.75), ceiling).value == pytest.approx(0.25)
    assert np.isnan(recovered_share(ceiling, sick, sick).value)
    assert difference_of_differences((sick, ceiling), (sick, sick)).value == pytest.approx(1.0)
