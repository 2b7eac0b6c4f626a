"""Claims about decisions, on synthetic losses whose truth is known: no model is needed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon.report.study_charts import of_documents
from headsurgeon.scores import crossed_draws
from headsurgeon.study import Contrast, Question, decide
from headsurgeon.study.cell_parts import Scored
from headsurgeon.study.conclusion import StudyResult
from headsurgeon.study.decision_rule import (
    _difference,
    _outcome,
    _p_value,
    decisions_of,
    pairs_of,
)
from headsurgeon.study.results import CellResult, StudyResults, load_results
from tests.documented import ROOT

LEVEL = 0.9
DRAWS = 800


def question(effect: float, rng: np.random.Generator, **fields: float) -> Question:
    """Three seeds and thirty documents that differ, around a known effect."""
    contrast = Contrast(name=f"c{rng.integers(2**40)}", arm="a", against="b", **fields)
    documents = 0.02 * rng.standard_t(5, 30)
    seeds = 0.005 * rng.normal(size=(3, 1))
    paired = effect + documents + seeds + 0.01 * rng.normal(size=(3, 30))
    return Question(contrast, "code", "code", paired, rng.integers(1, 5, 30) * 255.0)


@pytest.mark.parametrize(("effect", "outcome"), [(-0.05, "better"), (0.05, "worse")])
def test_a_clear_effect_is_called_what_it_is(effect: float, outcome: str) -> None:
    rng = np.random.default_rng(0)
    found = decide([question(effect, rng) for _ in range(4)], LEVEL, DRAWS)
    assert [each.outcome for each in found] == [outcome] * 4


def test_no_effect_within_a_margin_is_called_equivalent() -> None:
    rng = np.random.default_rng(1)
    found = decide([question(0.0, rng, margin=0.05)], LEVEL, DRAWS)
    assert found[0].outcome == "equivalent"


def test_no_difference_is_no_proof_of_equality() -> None:
    found = decide([question(0.0, np.random.default_rng(2))], LEVEL, DRAWS)
    assert found[0].outcome == "undecided"


def test_without_an_effect_a_study_calls_better_or_worse_no_more_often_than_its_level_says() -> (
    None
):
    rng = np.random.default_rng(3)
    wrong, trials = 0, 200
    for _ in range(trials):
        found = decide([question(0.0, rng) for _ in range(3)], LEVEL, DRAWS)
        wrong += any(each.outcome in ("better", "worse") for each in found)
    # 20 expected at most; 33 or more of 200 would have a chance of 0.2 % at exactly that rate
    assert wrong < 33


def test_the_clearest_contrast_is_judged_most_strictly_and_the_rest_share_what_is_left() -> None:
    rng = np.random.default_rng(4)
    found = decide([question(0.0, rng), question(-0.2, rng), question(0.0, rng)], LEVEL, DRAWS)
    levels = [round(each.level, 4) for each in found]
    assert found[1].outcome == "better"
    assert levels == [0.95, round(1 - 0.1 / 3, 4), 0.95]


def test_a_single_document_decides_nothing() -> None:
    contrast = Contrast(name="c", arm="a", against="b", margin=1.0)
    single = Question(contrast, "code", "code", np.full((3, 1), -0.5), np.array([100.0]))
    found = decide([single], LEVEL, DRAWS)[0]
    assert (found.outcome, found.low, found.minimum_detectable) == ("undecided", None, None)


def test_more_documents_detect_smaller_differences() -> None:
    rng = np.random.default_rng(5)
    few = question(0.0, rng)
    few = Question(few.contrast, "code", "code", few.paired[:1], few.tokens)
    many = Question(few.contrast, "code", "code", np.tile(few.paired, 9), np.tile(few.tokens, 9))
    detectable = [decide([each], LEVEL, DRAWS)[0].minimum_detectable for each in (few, many)]
    assert detectable[0] is not None
    assert detectable[1] is not None
    assert detectable[1] < detectable[0]


@given(st.permutations(range(4)))
def test_the_order_of_the_contrasts_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(6)
    questions = [question(effect, rng) for effect in (-0.03, 0.0, 0.01, 0.04)]
    expected = decide(questions, LEVEL, 200)
    found = decide([questions[index] for index in order], LEVEL, 200)
    assert found == [expected[index] for index in order]


@pytest.mark.parametrize(
    ("low", "high", "margin", "outcome"),
    [
        (-0.3, -0.2, 0.1, "better"),
        (-0.3, -0.1, 0.1, "undecided"),
        (0.2, 0.3, 0.1, "worse"),
        (0.1, 0.3, 0.1, "undecided"),
        (-0.05, 0.05, 0.1, "equivalent"),
        (-0.1, 0.05, 0.1, "undecided"),
        (-0.05, 0.1, 0.1, "undecided"),
        (0.0, 0.0, 0.0, "undecided"),
        (-0.1, 0.1, 0.0, "undecided"),
        (np.nan, np.nan, 0.1, "undecided"),
    ],
)
def test_an_interval_decides_only_if_it_lies_wholly_on_one_side_of_the_margin(
    low: float, high: float, margin: float, outcome: str
) -> None:
    assert _outcome(low, high, margin) == outcome


def test_the_clearness_of_a_contrast_counts_draws_beyond_the_margin_on_both_sides() -> None:
    sample = np.array([-3.0, -2.0, -1.0, 1.0] + [-4.0] * 15)
    # at or above -1: two of nineteen, and one more for the sample itself
    assert _p_value(sample, 1.0) == pytest.approx(2 * 3 / 20)
    assert _p_value(-sample, 1.0) == pytest.approx(2 * 3 / 20)
    assert _p_value(np.array([-0.5, 0.5]), 1.0) == 1.0
    assert _p_value(np.array([np.nan, -5.0]), 0.0) == 1.0


def test_a_decision_holds_the_quantiles_of_its_draws_and_what_they_could_have_shown() -> None:
    asked = question(0.01, np.random.default_rng(8), margin=0.002)
    found = decide([asked], LEVEL, DRAWS)[0]
    value, drawn = crossed_draws(asked.paired, asked.tokens, draws=DRAWS)
    low, high = np.quantile(drawn, (0.05, 0.95))
    assert [found.value, found.low, found.high] == pytest.approx([value, low, high])
    # half the width is z(95 %) standard errors; 80 % power takes z(80 %) more
    known = (high - low) / 2 * (1 + 0.8416212 / 1.6448536)
    assert found.minimum_detectable == pytest.approx(known, rel=1e-6)
    assert (found.documents, found.seeds, found.level, found.margin) == (30, 3, LEVEL, 0.002)
    assert (found.arm, found.against, found.text, found.trained_on) == ("a", "b", "code", "code")


def test_what_recovers_is_asked_of_the_cost_of_ablating() -> None:
    contrast = Contrast(name="works", question="recovers", arm="a", against="b")

    def cell(nll: list[float], ablated: list[float]) -> CellResult:
        scored = Scored.model_construct(
            tokens=(10, 20), nll=tuple(nll), ablated={"zero": tuple(ablated)}
        )
        return CellResult.model_construct(scored={"code": scored})

    # ablating costs 5 and 8 nats after, 1 and 2 before
    after, before = cell([20.0, 40.0], [25.0, 48.0]), cell([21.0, 42.0], [22.0, 44.0])
    rows = _difference(contrast, after, before, "code")
    np.testing.assert_allclose(rows, [-4.0 / 10, -6.0 / 20])


def test_cells_are_paired_by_seed_and_what_has_none_with_every_one() -> None:
    def cells(*seeds: int | None) -> list[CellResult]:
        return [CellResult.model_construct(seed=seed) for seed in seeds]

    def seeds_of(first: list[CellResult], second: list[CellResult]) -> list[tuple[Any, Any]]:
        return [(one.seed, other.seed) for one, other in pairs_of(first, second)]

    assert seeds_of(cells(0, 1, 2), cells(2, 1, 5)) == [(1, 1), (2, 2)]
    assert seeds_of(cells(0, 1), cells(None)) == [(0, None), (1, None)]
    assert seeds_of(cells(None), cells(0, 1)) == [(None, 0), (None, 1)]
    assert seeds_of(cells(), cells(0)) == []


def test_documents_are_drawn_over_the_seeds_that_both_arms_have_as_they_are_decided() -> None:
    results = load_results(ROOT / "docs" / "results" / "twins")
    kept = [cell for cell in results.cells if cell.arm != "gradient_only" or cell.seed == 1]
    fewer = results._replace(cells=tuple(kept))
    alike = [cell for cell in kept if cell.seed in (None, 1)]
    same = results._replace(cells=tuple(alike))

    def drawn(results: StudyResults) -> Mapping[str, str]:
        charts = of_documents(StudyResult(results, decisions_of(results)))
        return {chart.title: chart.svg for chart in charts}

    title = "paper − gradient_only, own"
    assert drawn(fewer)[title] == drawn(same)[title]
    assert len({cell.seed for cell in fewer.of("paper", "own")}) > 1
