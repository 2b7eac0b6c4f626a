"""Scores worked out by hand, or once more from the formula that the docstring states."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headsurgeon.bootstrap import resamples
from headsurgeon.errors import InputError
from headsurgeon.scores import (
    Estimate,
    Evaluation,
    crossed_difference,
    crossed_draws,
    difference,
    difference_of_differences,
    recovered_share,
)

TOKENS = np.array([10.0, 30.0, 60.0])


def losses(nll: Any, tokens: Any = TOKENS, **changes: Any) -> Evaluation:
    """An evaluation with the given summed losses of three documents."""
    fields: dict[str, Any] = {
        "model": "m",
        "corpus": "c",
        "split": "test",
        "length": 11,
        "stride": 11,
        "corpus_hash": "h",
        "count": 3,
        "first_token": "none",
        "seed": 0,
        "documents": tuple(f"d{index}" for index in range(len(nll))),
        "document_nll": np.array(nll, dtype=np.float64),
        "document_tokens": np.array(tokens, dtype=np.float64),
    }
    return Evaluation(**fields | changes)


def test_an_estimate_takes_its_numbers_in_order_or_by_name_and_no_fourth() -> None:
    assert Estimate(1.0, 0.5, 1.5) == Estimate(value=1.0, low=0.5, high=1.5)
    assert str(Estimate(1.0, -0.5, 1.25)) == "+1.0000 [-0.5000, +1.2500]"
    with pytest.raises(TypeError, match="got 4 numbers"):
        Estimate(1.0, 0.5, 1.5, 2.0)
    with pytest.raises(InputError, match="high"):
        Estimate(1.0, 0.5)


@pytest.mark.parametrize(
    ("numbers", "above", "below"),
    [
        ((2.0, 0.1, 3.0), True, False),
        ((2.0, 0.0, 3.0), False, False),
        ((0.5, -0.1, 1.0), False, False),
        ((-2.0, -3.0, -0.1), False, True),
        ((-2.0, -3.0, 0.0), False, False),
        ((2.0, 0.1, math.inf), False, False),
        ((-2.0, -math.inf, -0.1), False, False),
        ((math.nan, 0.1, 3.0), False, False),
    ],
)
def test_an_interval_that_touches_zero_or_has_no_end_says_nothing(
    numbers: tuple[float, float, float], above: bool, below: bool
) -> None:
    estimate = Estimate(*numbers)
    assert (estimate.above_zero, estimate.below_zero) == (above, below)


def test_loss_is_per_predicted_token_over_all_documents() -> None:
    evaluation = losses([20.0, 90.0, 90.0])
    assert evaluation.document_mean.tolist() == [2.0, 3.0, 1.5]
    assert (evaluation.tokens, evaluation.nll) == (100, 2.0)
    assert evaluation.perplexity == pytest.approx(math.e**2)
    assert losses([1e6, 0.0, 0.0]).perplexity == math.inf
    assert evaluation.interval().value == pytest.approx(2.0)


def test_texts_of_unequal_length_are_weighted_by_all_their_tokens_too() -> None:
    plain = losses([20.0, 90.0, 90.0])
    assert not plain.unequal
    assert plain.nll_weighted_by_length == plain.nll
    # three windows of 11 tokens in all
    equal = losses([20.0, 90.0, 90.0], document_lengths=np.array([11.0, 11.0, 11.0]))
    assert not equal.unequal
    unequal = losses([20.0, 90.0, 90.0], document_lengths=np.array([20.0, 30.0, 50.0]))
    assert unequal.unequal
    assert unequal.nll_weighted_by_length == pytest.approx(0.2 * 2.0 + 0.3 * 3.0 + 0.5 * 1.5)
    assert unequal.perplexity_weighted_by_length == pytest.approx(math.exp(2.05))


def test_the_file_has_an_entry_for_each_document_and_what_follows(tmp_path: Path) -> None:
    lengths = np.array([20.0, 30.0, 50.0])
    evaluation = losses([20.0, 90.0, 90.0], document_lengths=lengths)
    evaluation.save(tmp_path / "losses.json")
    content = json.loads((tmp_path / "losses.json").read_text())
    assert content["per_document"][1] == {
        "document": "d1",
        "nll": 90.0,
        "tokens": 30,
        "length": 30,
    }
    assert (content["documents"], content["tokens"]) == (3, 100)
    assert content["nll"]["value"] == pytest.approx(2.0)
    assert content["perplexity"] == pytest.approx(math.e**2)
    assert content["perplexity_weighted_by_length"] == pytest.approx(math.exp(2.05))
    # a number that follows is not read
    (tmp_path / "losses.json").write_text(json.dumps(content | {"tokens": 7}))
    again = Evaluation.load(tmp_path / "losses.json")
    assert again.model_dump() == evaluation.model_dump()
    assert "length" not in losses([1.0, 1.0, 1.0]).model_dump()["per_document"][0]
    for change in ({"length": None}, {"tokens": 0}, {"length": 0}):
        entries = [content["per_document"][0] | change, *content["per_document"][1:]]
        (tmp_path / "losses.json").write_text(json.dumps(content | {"per_document": entries}))
        with pytest.raises(InputError, match=r"losses\.json is damaged"):
            Evaluation.load(tmp_path / "losses.json")


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(InputError, match="of each document"):
        losses([1.0, 2.0], TOKENS)
    with pytest.raises(InputError, match="of each document"):
        losses([1.0, 2.0, 3.0], document_lengths=np.ones(2))


@pytest.mark.parametrize(
    "change",
    [
        {"split": "dev"},
        {"length": 12},
        {"corpus_hash": "g"},
        {"count": 4},
        {"first_token": "</s>"},
        {"seed": 1},
        {"packing": "separated"},
        {"documents": ("d0", "d1", "d3")},
        {"document_tokens": np.array([10.0, 30.0, 61.0])},
    ],
)
def test_evaluations_pair_only_on_the_same_windows(change: dict[str, Any]) -> None:
    here = losses([20.0, 90.0, 90.0])
    there = losses(**{"nll": [20.0, 90.0, 90.0], **change}, model="other")
    named = "documents" if next(iter(change)) == "document_tokens" else next(iter(change))
    for pair in ((here, there), (there, here)):
        with pytest.raises(InputError, match=f"different windows.*different: {named}\\)"):
            difference(*pair)
    with pytest.raises(InputError, match="different windows"):
        difference_of_differences((here, here), (here, there))
    with pytest.raises(InputError, match="different windows"):
        recovered_share(here, there, here)
    with pytest.raises(InputError, match="different windows"):
        crossed_difference([here, here], [here, there])
    # ids, model and corpus may be called otherwise
    assert difference(here, losses([20.0, 90.0, 90.0], model="b", corpus="moved")).value == 0.0


def test_differences_are_of_one_document_with_itself_and_weighted_by_tokens() -> None:
    here, there = losses([20.0, 90.0, 90.0]), losses([10.0, 90.0, 120.0])
    # per document +1, 0 and -0.5
    assert difference(here, there).value == pytest.approx((10.0 - 30.0) / 100.0)
    gain = difference_of_differences((here, there), (there, here))
    assert gain.value == pytest.approx(2 * (10.0 - 30.0) / 100.0)
    third = losses([0.0, 30.0, 60.0])
    assert difference_of_differences((here, third), (there, third)).value == pytest.approx(-0.2)


def test_the_seed_of_the_draws_reaches_every_interval() -> None:
    rng = np.random.default_rng(1)
    tokens = np.full(30, 10.0)
    sick, mended, healthy = (losses(rng.uniform(a, a + 9, 30), tokens) for a in (40, 20, 10))
    for interval in (
        sick.interval,
        lambda seed=0: difference(sick, mended, seed),
        lambda seed=0: difference_of_differences((sick, mended), (mended, healthy), seed),
        lambda seed=0: recovered_share(sick, mended, healthy, seed=seed),
        lambda seed=0: crossed_difference([sick, mended], [mended, healthy], seed=seed),
    ):
        assert interval() == interval(seed=0)
        assert interval().value == pytest.approx(interval(seed=1).value)
        assert interval().low != interval(seed=1).low


def test_the_share_recovered_is_a_ratio_of_sums_in_every_draw() -> None:
    rng = np.random.default_rng(0)
    nll = rng.uniform(20.0, 30.0, 40)
    tokens = np.full(40, 10.0)
    gap, gained = rng.uniform(1.0, 3.0, 40), rng.uniform(0.0, 2.0, 40)
    given = [losses(each, tokens) for each in (nll, nll - gained, nll - gap)]
    found = recovered_share(*given, draws=500, seed=3)
    counts = resamples(40, 500, np.random.default_rng(3))
    shares = (counts @ gained) / (counts @ gap)
    assert found.value == pytest.approx(gained.sum() / gap.sum())
    assert [found.low, found.high] == pytest.approx(np.quantile(shares, (0.025, 0.975)).tolist())


def test_a_share_is_the_same_of_a_gap_of_thousandths_of_a_nat() -> None:
    rng = np.random.default_rng(0)
    gap, gained = rng.uniform(1.0, 3.0, 40), rng.uniform(0.0, 2.0, 40)
    shares = []
    for scale in (1.0, 2.0**-12):
        nll = [25.0 - np.zeros(40), 25.0 - scale * gained, 25.0 - scale * gap]
        shares.append(
            recovered_share(*(losses(each, np.full(40, 10.0)) for each in nll), draws=500)
        )
    large, small = ([share.value, share.low, share.high] for share in shares)
    assert small == pytest.approx(large)


def test_a_share_needs_a_gap_in_nearly_all_draws_and_leaves_the_others_out() -> None:
    """The gap hangs on few documents: a draw without them has none."""
    for bearing, defined in ((4, False), (8, True)):
        gap = np.zeros(40)
        gap[:bearing] = 5.0
        nll = np.full(40, 20.0)
        given = [losses(each, np.full(40, 10.0)) for each in (nll, nll - gap / 2, nll - gap)]
        counts = resamples(40, 10_000, np.random.default_rng(0))
        lost = float(np.mean(counts @ gap <= 0.0))
        assert (0.0 < lost <= 0.005) == defined
        # the gap itself is clear in both
        assert difference(given[0], given[2]).above_zero
        share = recovered_share(*given)
        expected = [0.5, 0.5, 0.5] if defined else [math.nan] * 3
        assert [share.value, share.low, share.high] == pytest.approx(expected, nan_ok=True)


def by_the_formula(paired: np.ndarray, tokens: np.ndarray, draws: int, seed: int) -> Any:
    """Draw by draw: a bootstrap of both, spread to Student's width (see `crossed_draws`)."""
    seeds, documents = paired.shape
    rng = np.random.default_rng(seed)
    of_documents, of_seeds = resamples(documents, draws, rng), resamples(seeds, draws, rng)
    value = float(np.average(paired.mean(axis=0), weights=tokens))
    drawn = [
        np.average(np.average(paired, axis=0, weights=s), weights=d * tokens)
        for d, s in zip(of_documents, of_seeds, strict=True)
    ]
    share = tokens / tokens.sum()
    influence = share * (paired.mean(axis=0) - value)
    of_document = (influence**2).sum() * documents / (documents - 1)
    of_seed = np.var(paired @ share, ddof=1) / seeds if seeds > 1 else 0.0
    total = of_document + of_seed
    alike = of_document * (documents - 1) / documents + of_seed * (seeds - 1) / seeds
    freedom = total**2 / (
        of_document**2 / (documents - 1) + (of_seed**2 / (seeds - 1) if seeds > 1 else 0.0)
    )
    chi = rng.chisquare(freedom, draws)
    spread = np.sqrt(total / alike) * np.sqrt(freedom / chi)
    return value, value + (np.array(drawn) - value) * spread


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_crossed_draws_are_those_of_the_formula(seeds: int) -> None:
    rng = np.random.default_rng(7)
    paired = rng.normal(0.1, 0.05, (seeds, 9)) + 0.1 * rng.normal(size=(seeds, 1))
    tokens = rng.integers(1, 9, 9) * 10.0
    value, drawn = crossed_draws(paired, tokens, draws=50, seed=5)
    known_value, known = by_the_formula(paired, tokens, 50, 5)
    assert value == pytest.approx(known_value)
    np.testing.assert_allclose(drawn, known)
    nll = np.full(9, 3.0) * tokens
    ours = [losses(nll + row * tokens, tokens) for row in paired]
    estimate = crossed_difference(ours, [losses(nll, tokens)] * seeds, draws=50, level=0.8, seed=5)
    bounds = np.quantile(known, (0.1, 0.9)).tolist()
    assert [estimate.value, estimate.low, estimate.high] == pytest.approx([value, *bounds])


def test_one_document_has_a_difference_and_no_draws() -> None:
    value, drawn = crossed_draws(np.array([[0.2], [0.4]]), np.array([5.0]), draws=3)
    assert value == pytest.approx(0.3)
    assert drawn.shape == (3,)
    assert np.isnan(drawn).all()


def test_seeds_that_agree_on_documents_that_agree_leave_nothing_to_draw() -> None:
    value, drawn = crossed_draws(np.full((2, 4), 0.5), np.ones(4), draws=6)
    assert value == 0.5
    np.testing.assert_allclose(drawn, np.full(6, 0.5))
