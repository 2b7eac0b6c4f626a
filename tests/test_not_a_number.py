"""A number that is none closes every gate: it is named, and nothing is concluded from it."""

import math

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.errors import InputError, ModelError, PlanError
from headsurgeon.evaluation.recovery_rule import _unlike
from headsurgeon.heads import HeadId
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.scores import Estimate
from tests.head_stats import stats_of
from tests.pico import tokens
from tests.pico_families import pico_family


def overflowing(value: float) -> PreTrainedModel:
    """A model whose loss is not finite in windows with token 7; its head is not tied to it."""
    model = pico_family("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = value
    return model


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_a_number_names_its_window(value: float) -> None:
    batch = tokens(3, 12).clamp(min=8)
    batch[2, 4] = 7
    with pytest.raises(ModelError, match=r"1 of 3 windows.*window 2, window-2"):
        hs.evaluate(overflowing(value), batch)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_head_is_free_of_cost_where_the_loss_is_not_a_number(value: float) -> None:
    batch = torch.full((2, 12), 7)
    with pytest.raises(ModelError, match="not a finite number"):
        hs.ablate(overflowing(value), ["L0H0"], batch)
    with pytest.raises(ModelError, match="not a finite number"):
        hs.ablation_cost(overflowing(value), batch)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.0])
@pytest.mark.parametrize("low", [math.nan, math.inf, -math.inf, 0.5])
@pytest.mark.parametrize("high", [math.nan, math.inf, -math.inf, 2.0])
def test_an_estimate_decides_nothing_unless_it_and_its_bounds_are_finite(
    value: float, low: float, high: float
) -> None:
    finite = all(map(math.isfinite, (value, low, high)))
    assert Estimate(value, low, high).above_zero == finite
    assert Estimate(-value, -high, -low).below_zero == finite


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["joint_cost", "thresholds", "statistics", "ablation_cost"])
def test_a_plan_with_a_number_that_is_none_is_neither_written_nor_read(
    number: float, place: str
) -> None:
    def plan(value: float) -> Plan:
        head = PlannedHead(
            id=HeadId(0, 1),
            statistics={"entropy": value if place == "statistics" else 1.25},
            ablation_cost=value if place == "ablation_cost" else 1.25,
        )
        return Plan(
            model="m",
            rule="heads",
            heads=(head,),
            thresholds={"sink": value if place == "thresholds" else 1.25},
            joint_cost=value if place == "joint_cost" else 1.25,
        )

    with pytest.raises(PlanError, match="expected a finite number"):
        plan(number).to_yaml()
    text = plan(7.75).to_yaml()
    spelled = {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}[str(number)]
    with pytest.raises(PlanError, match=r"line \d+: .*finite"):
        Plan.from_yaml(text.replace("7.75", spelled))


@pytest.mark.parametrize("name", ["first_token_mass", "entropy"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_drift_of_what_is_no_number_is_refused(name: str, value: float) -> None:
    sound, broken = (stats_of(np.full((4, 2, 3), 0.7)) for _ in range(2))
    broken.values[name][1, 1, 2] = value
    for pair in ((sound, broken), (broken, sound)):
        with pytest.raises(InputError, match=f"{name} of L1H2 is not a finite number"):
            hs.drift(*pair, ["L0H0"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_head_unlike_the_null_by_an_infinite_number_alone_is_not_unlike_it(value: float) -> None:
    stats = stats_of(np.full((4, 1, 1), 0.3))
    null = [stats_of(np.full((4, 1, 1), 0.3)) for _ in range(3)]
    assert not _unlike(stats, null, [hs.HeadId(0, 0)])[0]
    stats.values["entropy"][:] = value
    assert not _unlike(stats, null, [hs.HeadId(0, 0)])[0]
