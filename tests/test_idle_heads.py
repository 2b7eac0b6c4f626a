"""Claims about finding idle heads: few measurements, the set that trying all beginnings gives."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headsurgeon as hs
from headsurgeon.errors import PlanError, SettingsError
from headsurgeon.evaluation import HighestCost
from headsurgeon.heads import HeadId
from headsurgeon.planning import Costs, PlainCosts
from headsurgeon.planning.idle_heads import expected_measurements, find_idle, longest
from headsurgeon.scores import Estimate
from tests.head_stats import diagnosis_of
from tests.own_text import model_and_own_text
from tests.pico import pico, tokens


class Told:
    """Costs that add up, with a margin and with estimates that are told."""

    not_estimated: str | None = None

    def __init__(
        self, true: Sequence[float], estimated: Sequence[float] | None = None, margin: float = 0.0
    ) -> None:
        self.true, self.margin = true, margin
        self.estimated = true if estimated is None else estimated
        self.asked: list[int] = []

    def __call__(self, heads: Sequence[HeadId]) -> float:
        return self.interval(heads).value

    def interval(self, heads: Sequence[HeadId]) -> Estimate:
        self.asked.append(len(heads))
        cost = sum(self.true[head.head] for head in heads)
        return Estimate(cost, cost - self.margin, cost + self.margin)

    def estimates(self, heads: Sequence[HeadId]) -> Mapping[HeadId, float]:
        return {head: self.estimated[head.head] for head in heads}


def heads(count: int) -> list[HeadId]:
    return [HeadId(0, head) for head in range(count)]


@given(st.integers(1, 40), st.integers(0, 40), st.integers(-5, 60))
def test_the_longest_beginning_is_found_in_few_questions(size: int, most: int, guess: int) -> None:
    asked: list[int] = []

    def fits(count: int) -> bool:
        asked.append(count)
        return count <= most

    assert longest(size, fits, lambda: guess) == min(size, most)
    assert len(asked) == len(set(asked)) <= 2 * math.ceil(math.log2(size + 1)) + 1
    assert set(asked) <= set(range(1, size + 1))


@given(st.lists(st.floats(0.0, 0.1), min_size=1, max_size=24), st.floats(0.0, 0.5))
def test_costs_that_add_up_give_the_set_that_one_by_one_gives(
    true: list[float], limit: float
) -> None:
    costs = Told(true)
    found = find_idle(heads(len(true)), costs, limit)
    slowly = find_idle(heads(len(true)), PlainCosts(Told(true)), limit)
    assert found.heads == slowly.heads
    assert found.estimated
    assert not slowly.estimated
    assert (found.cost is None) == (not found.heads)
    assert len(costs.asked) <= 6 * expected_measurements(len(true), True)


@given(st.integers(0, 10_000), st.floats(0.0, 0.3), st.floats(0.0, 0.05))
def test_whatever_the_estimates_the_interval_of_the_set_keeps_to_the_limit(
    seed: int, limit: float, margin: float
) -> None:
    rng = np.random.default_rng(seed)
    true = rng.normal(0.01, 0.02, 30)
    costs = Told(true.tolist(), rng.permutation(true).tolist(), margin)
    found = find_idle(heads(30), costs, limit)
    if found.cost is not None:
        assert costs.interval(found.heads) == found.cost
        assert found.cost.high <= limit


def test_a_head_that_costs_more_than_its_estimate_is_passed_over() -> None:
    true = [0.0, 0.3, 0.001, 0.002, 0.5, 0.6]
    found = find_idle(heads(6), Told(true, [0.0, 0.0005, 0.001, 0.002, 0.5, 0.6]), 0.05)
    assert found.heads == (HeadId(0, 0), HeadId(0, 2), HeadId(0, 3))


def test_a_head_whose_estimate_is_far_too_high_is_tried_all_the_same() -> None:
    assert find_idle(heads(1), Told([0.0], [9.0]), 0.05).heads == (HeadId(0, 0),)


def test_twenty_five_heads_take_a_seventh_of_the_measurements() -> None:
    true = np.linspace(0.0, 0.01, 25).tolist()
    quickly, slowly = Told(true), Told(true)
    find_idle(heads(25), quickly, 0.05)
    find_idle(heads(25), PlainCosts(slowly), 0.05)
    assert 7 * len(quickly.asked) <= len(slowly.asked)


def test_a_plan_says_which_costs_are_estimates_and_how_far_the_joint_one_reaches() -> None:
    diagnosis = diagnosis_of([[0.9, 0.9, 0.9, 0.9, 0.9, 0.1]])
    true = [0.0, 0.01, 0.02, 0.03, 0.04, 0.0]
    idle = hs.plan(diagnosis, "idle", cost=Told(true, margin=0.005), max_cost=0.05)
    assert [str(head) for head in idle.operated] == ["L0H0", "L0H1", "L0H2"]
    assert all(head.cost_estimated for head in idle.heads)
    assert any("0.0300 nats, its 95 % interval over documents ending at 0.0350" in note
               for note in idle.notes)  # fmt: skip
    every = hs.plan(diagnosis, "sick", cost=Told(true))
    assert [head.ablation_cost for head in every.heads] == true[:5]
    assert all(head.cost_estimated for head in every.heads)
    assert every.joint_cost == pytest.approx(0.1)
    assert hs.Plan.from_yaml(every.to_yaml()) == every
    assert "ablation_cost: 0.01, cost_estimated: true}" in every.to_yaml()
    few = hs.plan(diagnosis, "heads", heads=["L0H1", "L0H2"], cost=Told(true))
    assert not any(head.cost_estimated for head in few.heads)
    assert "cost_estimated: true}" not in few.to_yaml()


def test_of_a_model_the_set_is_that_of_all_beginnings_in_the_order_of_the_estimates() -> None:
    model, windows = model_and_own_text(heads=8)
    candidates = [HeadId(layer, head) for layer in range(3) for head in range(8)]
    costs = hs.ablation_cost(model, windows)
    estimates = costs.estimates(candidates)
    order = sorted(candidates, key=lambda head: (estimates[head], head))
    upper = np.array([costs.interval(order[: count + 1]).high for count in range(len(order))])
    limit = float(upper[14] + upper[15]) / 2.0
    # there is one place in the order where the limit is crossed, so there is one answer
    assert np.flatnonzero(np.diff(upper > limit)).tolist() == [14]
    found = find_idle(candidates, hs.ablation_cost(model, windows), limit)
    assert found.heads[:15] == tuple(order[:15])
    assert order[15] not in found.heads
    assert found.cost is not None
    assert found.cost.high <= limit


def test_windows_are_told_of_and_a_set_is_measured_once() -> None:
    told: list[int] = []
    costs = hs.ablation_cost(pico("bloom"), tokens(4, 8), on_windows=told.append)
    assert isinstance(costs, Costs)
    both = [HeadId(1, 0), HeadId(2, 1)]
    assert costs(both) == pytest.approx(costs.interval(both[::-1]).value, abs=1e-12)
    costs.estimates(both)
    assert told == [4, 4, 3 * 4]
    exact = hs.ablation_cost(pico("bloom"), tokens(4, 8), singles=True)
    assert exact.not_estimated
    with pytest.raises(SettingsError, match="by itself"):
        exact.estimates(both)
    with pytest.raises(PlanError, match="function"):
        PlainCosts(lambda heads: 0.0).estimates(both)


def test_costs_under_mean_ablation_are_estimated_too() -> None:
    model, windows = model_and_own_text()
    every = [HeadId(layer, head) for layer in range(3) for head in range(4)]
    for mode in ("zero", "mean"):
        costs = hs.ablation_cost(model, windows, mode=mode)
        about = costs.estimates(every)
        exact = [costs([head]) for head in every]
        assert np.corrcoef([about[head] for head in every], exact)[0, 1] > 0.8


def test_the_highest_cost_is_taken_head_by_head() -> None:
    one, other = Told([0.1, 0.2]), Told([0.3, 0.0], margin=0.01)
    highest = HighestCost([one, other])
    assert highest.not_estimated is None
    assert highest.estimates(heads(2)) == {HeadId(0, 0): 0.3, HeadId(0, 1): 0.2}
    assert highest.interval(heads(2)).high == pytest.approx(0.31)
    assert highest(heads(2)) == pytest.approx(0.3)
