"""What the demo says follows the intervals, whoever wins."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon.demo.wording import (
    against_control,
    elsewhere,
    number,
    of_the_gap,
    recovered,
    share,
    with_bounds,
)
from headsurgeon.evaluate import Ablation, Estimate, Evaluation, Recovery
from headsurgeon.heads import HeadId

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
    return Ablation("zero", cost, {}, baseline, baseline)


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
        null=(np.array([0.02, 0.04]),),
    )
    text = recovered(recovery)
    assert "2 of 2 operated heads are no longer sick, but an untrained head would not be" in text
    assert "0.030" in text
    assert case.count in text
    assert case.reason in text
