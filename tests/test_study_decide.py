"""Claims about decisions, on synthetic losses whose truth is known: no model is needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon.study import Contrast, Question, decide

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
