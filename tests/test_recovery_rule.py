"""The rule that says which heads recovered, on figures worked out by hand: no model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float

from headsurgeon.errors import InputError, SettingsError
from headsurgeon.evaluation import Ablation, Recovery
from headsurgeon.evaluation.recovery_rule import (
    COMPARED,
    NULL_SEEDS,
    StatsAndAblation,
    recovery_from,
    untrained_start,
)
from headsurgeon.heads import HeadId
from headsurgeon.scores import Estimate, Evaluation, difference
from tests.head_stats import stats_of

HEADS = (HeadId(0, 1), HeadId(1, 0))
# Four untrained heads with 0, 0, 2, 2 deviate by s = √(4/3) from their mean of 1, and the others
# not at all, so that both together deviate by s = √(2/3). Two heads and three statistics share 5 %,
# half of it on either side: z = 2.63826 of a normal distribution. The reach is z·s·√(1 + 1/4).
SEEDS = (0.0, 0.0, 2.0, 2.0)
CENTRE, REACH = 1.0, np.array([3.40596, 2.40838])


class Untrained:
    """What was kept of an untrained pair of heads: one number for each, whatever the statistic."""

    def __init__(self, first: float, second: float) -> None:
        self._mean = np.array([[9.0, first], [second, 9.0]])

    def mean(self, name: str) -> Float[np.ndarray, "layer head"]:
        assert name in COMPARED
        return self._mean


NULL = tuple(Untrained(value, CENTRE) for value in SEEDS)
# so wide that no head differs from it, and so narrow that every head does
ALIKE = (Untrained(-900.0, -900.0), Untrained(900.0, 900.0))
OTHER = (Untrained(90.0, 90.0), Untrained(90.0, 90.0))


def evaluation(nll: Sequence[float]) -> Evaluation:
    return Evaluation(
        model="m",
        corpus="c",
        split="test",
        length=11,
        stride=11,
        corpus_hash="h",
        count=len(nll),
        first_token="none",
        seed=0,
        documents=tuple(f"d{index}" for index in range(len(nll))),
        document_nll=10.0 * np.array(nll),
        document_tokens=np.full(len(nll), 10.0),
    )


def ablation(*costs: float) -> Ablation:
    """Heads that cost so much in each document when they are ablated, nats per token."""
    whole, without = evaluation([3.0] * len(costs)), evaluation([3.0 + cost for cost in costs])
    return Ablation(
        mode="zero", joint=difference(without, whole), singles={}, baseline=whole, ablated=without
    )


def measured(
    *costs: float,
    mass: tuple[float, float] = (0.1, 0.1),
    values: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> StatsAndAblation:
    """The two heads on one corpus; `values` has a statistic of both in each document."""

    def of_all_heads(of_documents: Sequence[tuple[float, float]]) -> np.ndarray:
        return np.array([[[7.0, first], [second, 7.0]] for first, second in of_documents])

    given = {name: of_all_heads(each) for name, each in (values or {}).items()}
    documents = len(next(iter(given.values()), [0, 0]))
    content = {name: of_all_heads([(CENTRE, CENTRE)] * documents) for name in COMPARED}
    content["first_token_mass"] = of_all_heads([mass] * documents)
    stats = stats_of(content["first_token_mass"])
    stats = stats.model_copy(update={"values": {**stats.values, **content, **given}})
    return StatsAndAblation(stats, ablation(*(costs or (1.0, 1.0))))


def unlike(null: Sequence[Any] = NULL, **values: Sequence[tuple[float, float]]) -> list[bool]:
    found = recovery_from([measured()], [measured(values=values)], [null], HEADS)
    return list(map(bool, found.unlike_null))


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_head_differs_from_the_reach_of_one_more_untrained_head_on_either_side(
    name: str, side: float
) -> None:
    same = {other: [(CENTRE, CENTRE)] * 2 for other in COMPARED}
    inside, outside = CENTRE + side * (REACH - 1e-4), CENTRE + side * (REACH + 1e-4)
    for values, expected in (
        ((inside[0], inside[1]), [False, False]),
        ((outside[0], inside[1]), [True, False]),
        ((inside[0], outside[1]), [False, True]),
    ):
        assert unlike(**(same | {name: [values] * 2})) == expected


def test_each_head_is_compared_with_its_own_untrained_heads() -> None:
    null = [Untrained(value, 10.0 * CENTRE + value) for value in SEEDS]
    values = {name: [(CENTRE + 1.0, 11.0 * CENTRE)] * 2 for name in COMPARED}
    assert unlike(null, **values) == [False, False]
    values["entropy"] = [(11.0 * CENTRE, CENTRE)] * 2
    assert unlike(null, **values) == [True, True]


def test_a_head_differs_only_with_its_whole_interval() -> None:
    far, near = CENTRE + 9.0, CENTRE + 2.0
    same = {other: [(CENTRE, CENTRE)] * 2 for other in COMPARED}
    assert unlike(**(same | {"entropy": [(far, far), (near, far)]})) == [False, True]
    both = [(CENTRE - 9.0, CENTRE - 9.0), (CENTRE + 9.0, CENTRE - 9.0)]
    assert unlike(**(same | {"entropy": both})) == [False, True]


def test_documents_count_by_their_windows() -> None:
    """Of three documents the last has 60 of 62 windows: only draws without it, 8 of 27, are far."""
    windows = 62
    names = ["a", "b"] + ["c"] * 60
    far = [(CENTRE, CENTRE), (CENTRE, CENTRE)] + [(CENTRE + 9.0, CENTRE)] * 60
    stats = measured(values={"entropy": far}).stats.model_copy(update={"documents": tuple(names)})
    mass = {"first_token_mass": np.full((windows, 2, 2), CENTRE)}
    stats = stats.model_copy(update={"values": {**stats.values, **mass}})
    found = recovery_from(
        [measured()], [StatsAndAblation(stats, ablation(1.0, 1.0))], [NULL], HEADS
    )
    assert not found.unlike_null.any()


def test_of_one_document_or_without_a_finite_bound_nothing_is_known() -> None:
    far = (CENTRE + 99.0, CENTRE + 99.0)
    same = {other: [(CENTRE, CENTRE)] for other in COMPARED}
    assert unlike(**(same | {"entropy": [far]})) == [False, False]
    same = {other: [(CENTRE, CENTRE)] * 2 for other in COMPARED}
    with np.errstate(invalid="ignore"):
        endless = [(math.inf, CENTRE + 99.0), (math.inf, CENTRE + 99.0)]
        assert unlike(**(same | {"entropy": endless})) == [False, True]
        endless = [(-math.inf, CENTRE + 99.0), (-math.inf, CENTRE + 99.0)]
        assert unlike(**(same | {"entropy": endless})) == [False, True]
        null = [*NULL[:3], Untrained(-math.inf, CENTRE)]
        assert unlike(null, **(same | {"entropy": [far, far]}))[0] is False


def test_a_head_must_differ_on_every_corpus() -> None:
    for nulls, expected in (((OTHER, OTHER), True), ((OTHER, ALIKE), False)):
        for order in (nulls, nulls[::-1]):
            found = recovery_from([measured()] * 2, [measured()] * 2, order, HEADS)
            assert found.unlike_null.all() == expected


def test_a_head_left_the_sick_class_if_it_was_in_it_on_one_corpus_and_is_now_on_none() -> None:
    def masses(*pairs: tuple[float, float]) -> list[StatsAndAblation]:
        return [measured(mass=pair) for pair in pairs]

    for before, after, was, left in (
        ([(0.6, 0.5), (0.1, 0.1)], [(0.5, 0.1), (0.1, 0.1)], [True, False], [True, False]),
        ([(0.1, 0.1), (0.1, 0.6)], [(0.1, 0.1), (0.1, 0.6)], [False, True], [False, False]),
        ([(0.6, 0.6), (0.6, 0.6)], [(0.6, 0.1), (0.1, 0.1)], [True, True], [False, True]),
        ([(0.6, 0.6), (0.6, 0.6)], [(math.nan, 0.1), (0.1, 0.1)], [True, True], [False, True]),
    ):
        found = recovery_from(masses(*before), masses(*after), [OTHER, OTHER], HEADS)
        assert list(found.was_sick) == was
        assert list(found.left_sick) == left


@pytest.mark.parametrize("sick_mass", [0.2, 0.999])
def test_sick_is_what_lies_above_the_mass_that_is_given(sick_mass: float) -> None:
    before, after = measured(mass=(sick_mass + 5e-4, sick_mass)), measured(mass=(0.1, 0.1))
    found = recovery_from([before], [after], [OTHER], HEADS, sick_mass=sick_mass)
    assert list(found.was_sick) == list(found.left_sick) == [True, False]


def test_function_is_the_cost_after_minus_the_cost_before() -> None:
    before, after = measured(0.25, 0.5), measured(1.0, 2.0)
    found = recovery_from([before], [after], [OTHER], HEADS)
    assert found.stock == (before.ablation,)
    assert found.revived == (after.ablation,)
    assert found.function[0].value == pytest.approx((0.75 + 1.5) / 2)
    assert found.function[0].low == pytest.approx(0.75)
    assert found.function[0].high == pytest.approx(1.5)


def test_a_set_works_if_on_every_corpus_it_costs_loss_and_more_than_before() -> None:
    worth, nothing, harm = measured(1.0, 2.0), measured(0.0, 0.0), measured(-2.0, -1.0)
    unsure = measured(-0.5, 2.0)
    for before, after, functional in (
        ([nothing], [worth], True),
        ([worth], [worth], False),  # no more than before
        ([harm], [nothing], False),  # more than before, but no work
        ([nothing], [unsure], False),
        ([nothing, nothing], [worth, worth], True),
        ([nothing, nothing], [worth, nothing], False),
        ([nothing, worth], [worth, worth], False),
        ([nothing, harm], [worth, nothing], False),  # more than before on both, work on one
    ):
        nulls = [OTHER] * len(before)
        assert recovery_from(before, after, nulls, HEADS).functional == functional


def recovered(**changes: Any) -> Recovery:
    fields: dict[str, Any] = {
        "heads": HEADS,
        "was_sick": np.array([True, True]),
        "left_sick": np.array([True, True]),
        "unlike_null": np.array([True, True]),
        "stock": (ablation(0.0, 0.0),),
        "revived": (ablation(1.0, 2.0),),
        "function": (Estimate(1.5, 1.0, 2.0),),
        "null": (np.array([0.25, 0.75]),),
    }
    return Recovery(**fields | changes)


def test_recovered_are_the_heads_for_which_all_three_conditions_hold() -> None:
    assert recovered().recovered == HEADS
    assert recovered(left_sick=np.array([False, True])).recovered == HEADS[1:]
    assert recovered(unlike_null=np.array([True, False])).recovered == HEADS[:1]
    assert recovered(function=(Estimate(1.5, 0.0, 2.0),)).recovered == ()
    assert recovered(revived=(ablation(-1.0, 2.0),)).recovered == ()


def test_a_recovery_states_how_many_heads_and_what_untrained_ones_show() -> None:
    content = recovered().model_dump()
    assert content["operated"] == 2
    assert list(content["null_mass"]) == [0.5]
    found = recovery_from([measured()], [measured()], [NULL], HEADS)
    assert found.heads == HEADS
    assert np.allclose(found.null[0], [CENTRE, CENTRE])
    uneven = (Untrained(0.0, 0.5), Untrained(1.0, 0.75))
    assert np.allclose(
        recovery_from([measured()], [measured()], [uneven], HEADS).null[0], [0.5, 0.625]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"was_sick": np.array([True])},
        {"null": (np.array([0.25]),)},
        {"null": ()},
        {"stock": ()},
        {"function": ()},
    ],
)
def test_a_recovery_has_an_entry_for_each_head_and_for_each_corpus(changes: Any) -> None:
    with pytest.raises(InputError, match="one entry for each head, and for each corpus"):
        recovered(**changes)


@pytest.mark.parametrize("counts", [(1, 2, 1), (2, 2, 1), (1, 1, 2)])
def test_the_rule_takes_as_many_corpora_before_as_after_and_as_nulls(
    counts: tuple[int, int, int],
) -> None:
    before, after, nulls = counts
    with pytest.raises(ValueError, match="zip"):
        recovery_from([measured()] * before, [measured()] * after, [OTHER] * nulls, HEADS)


@pytest.mark.parametrize(
    ("init", "output_start", "untrained"),
    [
        ("model", "keep_output", ("model", "keep_output")),
        ("xavier_normal", "zero_output", ("xavier_normal", "zero_output")),
        ("none", "keep_output", ("xavier_uniform_head", "zero_output")),
        ("model", "carry", ("xavier_uniform_head", "zero_output")),
    ],
)
def test_untrained_heads_start_as_these_did_unless_that_kept_or_fitted_weights(
    init: str, output_start: str, untrained: tuple[str, str]
) -> None:
    assert untrained_start(init, output_start) == untrained


def test_a_start_that_there_is_not_is_refused() -> None:
    with pytest.raises(SettingsError, match="orthogonal"):
        untrained_start("orthogonal", "zero_output")


def test_a_null_has_several_seeds_and_no_two_alike() -> None:
    assert len(set(NULL_SEEDS)) == len(NULL_SEEDS) >= 5
