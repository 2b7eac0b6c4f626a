"""Claims about rules: which heads they choose, what they never choose, what they say about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsurgeon.arch import layout_of
from headsurgeon.cli.plan_table import show_plan
from headsurgeon.diagnosis import diagnose
from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.errors import HeadError, PlanError
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.models.fingerprint import fingerprint
from headsurgeon.planning import RULES, Plan
from headsurgeon.planning.matching import nearest
from headsurgeon.planning.planning import plan
from tests.head_stats import diagnosis_of
from tests.pico import pico, tokens
from tests.pico_families import pico_family

# sick: L0H2, L0H3, L1H3 (dead), L2H0
PATIENT = [[0.1, 0.2, 0.6, 0.7], [0.1, 0.1, 0.3, 0.97], [0.9, 0.1, 0.1, 0.1]]

masses = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 10_000)).map(
    lambda size: np.random.default_rng(size[2]).random(size[:2]).tolist()
)


def patient() -> Diagnosis:
    return diagnosis_of(PATIENT)


def per_layer(heads: Sequence[HeadId]) -> Counter[int]:
    return Counter(head.layer for head in heads)


def names(heads: Sequence[HeadId]) -> str:
    return " ".join(map(str, heads))


def test_named_heads_are_watched_unless_they_are_operated_on() -> None:
    made = plan(patient(), "heads", heads=["L2H1", "L0H2"], watch=["L0H0", "L2H1"])
    assert names(made.operated) == "L0H2 L2H1"
    assert names(made.watched) == "L0H0"
    band = plan(patient(), "band", band=(2, 3), watch=["L0H0"])
    assert set(made.watched) < set(band.watched)
    with pytest.raises(HeadError, match="L9H9"):
        plan(patient(), watch=["L9H9"])


def test_sick_takes_every_sick_head_and_no_other() -> None:
    assert names(plan(patient()).operated) == "L0H2 L0H3 L1H3 L2H0"
    assert plan(patient()).watched == ()


def test_sick_may_be_limited_to_layers() -> None:
    assert names(plan(patient(), layers=(1, 2)).operated) == "L1H3 L2H0"


def test_a_band_operates_on_its_sick_heads_and_watches_its_healthy_ones() -> None:
    found = plan(patient(), "band", band=(2, 3), layers=(0, 1))
    assert names(found.operated) == "L0H2 L0H3 L1H3"
    assert names(found.watched) == "L1H2"


@given(masses, st.data())
def test_a_band_plans_exactly_its_rectangle(mass: list[list[float]], data: st.DataObject) -> None:
    diagnosis = diagnosis_of(mass)
    layers, heads = diagnosis.stats.shape
    band = tuple(sorted(data.draw(st.tuples(*[st.integers(0, heads - 1)] * 2))))
    rows = tuple(sorted(data.draw(st.tuples(*[st.integers(0, layers - 1)] * 2))))
    inside = {
        HeadId(layer, head)
        for layer in range(rows[0], rows[1] + 1)
        for head in range(band[0], band[1] + 1)
    }
    if not inside & set(diagnosis.sick):
        with pytest.raises(PlanError, match="no sick head"):
            plan(diagnosis, "band", band=band, layers=rows)
        return
    found = plan(diagnosis, "band", band=band, layers=rows)
    assert set(found.operated) == inside & set(diagnosis.sick)
    assert set(found.watched) == inside - set(diagnosis.sick)


def test_named_heads_are_operated_on_whether_sick_or_not() -> None:
    found = plan(patient(), "heads", heads=["L2H1", "l0h2", (0, 2)])
    assert names(found.operated) == "L0H2 L2H1"
    assert [head.verdict for head in found.heads] == ["sink", "healthy"]


def test_a_column_is_one_head_index_in_all_layers_or_in_some() -> None:
    assert names(plan(patient(), "column", column=3).operated) == "L0H3 L1H3 L2H3"
    assert names(plan(patient(), "column", column=3, layers=(0, 1)).operated) == "L0H3 L1H3"


def test_named_heads_and_columns_need_no_sick_head() -> None:
    healthy = diagnosis_of([[0.1, 0.1]])
    assert names(plan(healthy, "heads", heads=["L0H1"]).operated) == "L0H1"
    assert names(plan(healthy, "column", column=0).operated) == "L0H0"


@given(masses, st.integers(0, 50))
def test_random_draws_as_many_heads_per_layer_as_are_sick(
    mass: list[list[float]], seed: int
) -> None:
    diagnosis = diagnosis_of(mass)
    if not diagnosis.sick:
        return
    found = plan(diagnosis, "random", seed=seed)
    assert per_layer(found.operated) == per_layer(diagnosis.sick)
    assert found == plan(diagnosis, "random", seed=seed)
    assert found.seed == seed


def test_random_draws_healthy_and_sick_heads_alike() -> None:
    drawn = Counter(
        head for seed in range(400) for head in plan(patient(), "random", seed=seed).operated
    )
    # one head of four per draw in layer 1, whichever is sick
    assert all(70 < drawn[HeadId(1, head)] < 130 for head in range(4))


def test_random_says_how_many_of_its_heads_are_sick() -> None:
    found = plan(patient(), "random", seed=1)
    sick = len(set(found.operated) & set(patient().sick))
    assert f"{sick} of the 4 heads drawn are sick" in found.notes


@given(masses)
def test_matched_heads_are_healthy_and_as_many_per_layer_as_are_sick(
    mass: list[list[float]],
) -> None:
    diagnosis = diagnosis_of(mass)
    healthy = [(diagnosis.verdicts[layer] == "healthy").sum() for layer in range(len(mass))]
    expected = np.minimum(diagnosis.per_layer, healthy)
    if not expected.sum():
        with pytest.raises(PlanError, match="no sick head"):
            plan(diagnosis, "matched")
        return
    found = plan(diagnosis, "matched")
    assert not set(found.operated) & set(diagnosis.sick)
    assert all(head.verdict == "healthy" for head in found.heads)
    assert [per_layer(found.operated)[layer] for layer in range(len(mass))] == expected.tolist()
    short = [layer for layer in range(len(mass)) if expected[layer] < diagnosis.per_layer[layer]]
    assert [note.split(":")[0] for note in found.notes if "to match" in note] == [
        f"layer {layer}" for layer in short
    ]


def test_matched_takes_the_healthy_heads_with_the_nearest_slopes() -> None:
    assert names(plan(patient(), "matched").operated) == "L0H0 L0H1 L1H2 L2H1"


def test_matched_goes_by_slope_and_not_by_index() -> None:
    # with 3 heads BLOOM's slopes are not in order: 2⁻⁴, 2⁻⁸, 2⁻²
    found = diagnosis_of([[0.1, 0.9, 0.1]], slopes=[2.0**-4, 2.0**-8, 2.0**-2])
    assert names(plan(found, "matched").operated) == "L0H0"
    found = diagnosis_of([[0.9, 0.1, 0.1]], slopes=[2.0**-4, 2.0**-8, 2.0**-2])
    assert names(plan(found, "matched").operated) == "L0H2"


@given(st.integers(0, 10_000), st.integers(2, 7), st.booleans())
def test_matching_finds_the_smallest_sum_of_distances(
    seed: int, heads: int, position_bias: bool
) -> None:
    rng = np.random.default_rng(seed)
    slopes = 2.0 ** -rng.permutation(np.arange(1.0, heads + 1)) * position_bias
    order = rng.permutation(heads)
    split = int(rng.integers(0, heads + 1))
    targets, pool = order[:split], order[split:]
    found = nearest(slopes, targets, pool)
    assert set(found) <= set(pool.tolist())
    assert len(found) == min(len(targets), len(pool))
    if len(pool) < len(targets):
        return
    # sorted points on a line are matched best in order, which is tried for every subset
    place = np.log2(np.maximum(slopes, 2.0**-24))

    def total(chosen: Sequence[int]) -> float:
        return float(np.abs(np.sort(place[list(chosen)]) - np.sort(place[targets])).sum())

    best = min(total(chosen) for chosen in combinations(pool.tolist(), len(targets)))
    assert total(found) == pytest.approx(best)


costs = st.lists(st.floats(-0.02, 0.1), min_size=24, max_size=24)


@given(masses, costs, st.floats(0.0, 0.1), st.floats(-0.01, 0.02))
def test_idle_never_costs_more_than_its_limit(
    mass: list[list[float]], prices: list[float], limit: float, synergy: float
) -> None:
    diagnosis = diagnosis_of(mass)

    def cost(heads: Sequence[HeadId]) -> float:
        alone = sum(prices[6 * head.layer + head.head] for head in heads)
        return alone + synergy * (len(heads) - 1) ** 2

    try:
        found = plan(diagnosis, "idle", cost=cost, max_cost=limit)
    except PlanError:
        assert not diagnosis.sick or min(cost([head]) for head in diagnosis.sick) > limit
        return
    assert found.joint_cost is not None
    assert found.joint_cost <= limit
    assert set(found.operated) <= set(diagnosis.sick)
    if not synergy:
        assert found.joint_cost == pytest.approx(cost(found.operated))


def test_idle_skips_a_head_that_works_and_goes_on() -> None:
    """L0H2 and L0H3 stand in for each other: either alone is idle, both together are not."""
    single = {"L0H2": 0.00, "L0H3": 0.01, "L1H3": 0.02, "L2H0": 0.9}

    def cost(heads: Sequence[HeadId]) -> float:
        both = {"L0H2", "L0H3"} <= {str(head) for head in heads}
        return sum(single[str(head)] for head in heads) + (0.5 if both else 0.0)

    found = plan(patient(), "idle", cost=cost, max_cost=0.05)
    assert names(found.operated) == "L0H2 L1H3"
    assert [head.ablation_cost for head in found.heads] == [0.0, 0.02]
    assert found.joint_cost == 0.02
    assert any("L0H3, L2H0" in note for note in found.notes)


def test_idle_keeps_to_its_layers_and_says_nothing_of_heads_left_out_where_none_is() -> None:
    found = plan(patient(), "idle", layers=(0, 1), cost=lambda heads: 0.0)
    assert names(found.operated) == "L0H2 L0H3 L1H3"
    assert not any("left out" in note for note in found.notes)


def test_idle_asks_nothing_more_once_a_head_alone_costs_more_than_is_left() -> None:
    asked: list[str] = []
    single = {"L0H2": 0.03, "L0H3": 0.01, "L1H3": 0.04, "L2H0": 0.02}

    def cost(heads: Sequence[HeadId]) -> float:
        asked.append(names(heads))
        return sum(single[str(head)] for head in heads)

    found = plan(patient(), "idle", cost=cost, max_cost=0.05)
    assert names(found.operated) == "L0H3 L2H0"
    # every head alone, then the two that fit; L0H2 and L1H3 cannot
    assert asked == ["L0H2", "L0H3", "L1H3", "L2H0", "L0H3 L2H0"]
    assert any("L0H2, L1H3" in note for note in found.notes)


def test_idle_may_be_limited_to_heads_of_which_only_the_sick_count() -> None:
    found = plan(patient(), "idle", heads=["L0H0", "L0H3", "L2H0"], cost=lambda heads: 0.0)
    assert names(found.operated) == "L0H3 L2H0"
    with pytest.raises(PlanError, match="no sick head among those"):
        plan(patient(), "idle", heads=["L0H0"], cost=lambda heads: 0.0)


def test_idle_leaves_out_a_head_whose_cost_is_not_a_number() -> None:
    def cost(heads: Sequence[HeadId]) -> float:
        return float("nan") if HeadId(0, 2) in heads else 0.0

    assert names(plan(patient(), "idle", cost=cost).operated) == "L0H3 L1H3 L2H0"


def test_idle_without_an_idle_head_names_the_cheapest() -> None:
    with pytest.raises(PlanError, match=r"0\.05 nats or less; the cheapest, L1H3, costs 0\.1000"):
        plan(patient(), "idle", cost=lambda heads: 0.1 if heads[0].layer == 1 else 0.2)


def test_idle_needs_a_cost() -> None:
    with pytest.raises(PlanError, match="rule idle needs the cost"):
        plan(patient(), "idle")


def test_with_a_cost_every_rule_shows_what_ablation_costs() -> None:
    found = plan(patient(), "band", band=(2, 3), layers=(0, 1), cost=lambda heads: len(heads) / 8)
    by_name = {str(head.id): head.ablation_cost for head in found.heads}
    assert by_name == {"L0H2": 0.125, "L0H3": 0.125, "L1H2": None, "L1H3": 0.125}
    assert found.joint_cost == 0.375


def test_a_planned_head_carries_its_verdict_and_statistics() -> None:
    [head] = plan(patient(), layers=(1, 1)).heads
    assert head.verdict == "dead"
    assert set(head.statistics) == {
        *("first_token_mass", "entropy", "mean_distance", "output_norm", "slope", "null_mass")
    }
    assert head.statistics["first_token_mass"] == 0.97
    assert head.statistics["slope"] == pytest.approx(2.0**-8, rel=1e-3)


def test_a_plan_says_what_it_was_made_from() -> None:
    found = plan(patient(), init="model", output_start="keep_output", seed=7)
    assert (found.model, found.rule, found.seed) == ("pico", "sick", 7)
    assert (found.init, found.output_start) == ("model", "keep_output")
    assert found.thresholds == {"sink": 0.5, "dead": 0.95, "low_entropy": 0.5}
    assert found.notes == (
        "diagnosed on text:none, split dev: 4 windows of 16 tokens from 2 documents",
    )
    assert (found.fingerprint, found.joint_cost) == (None, None)


@pytest.mark.parametrize("rule", ["sick", "band", "random", "matched", "idle"])
def test_without_sick_heads_there_is_nothing_to_plan(rule: str) -> None:
    options = {"band": {"band": (0, 1)}, "idle": {"cost": lambda heads: 0.0}}
    with pytest.raises(PlanError, match="no sick head"):
        plan(diagnosis_of([[0.1, 0.2]]), rule, **options.get(rule, {}))


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (
            "sicc",
            {},
            "no rule 'sicc'; known are sick, newly_sick, band, heads, column, random, matched,"
            " idle",
        ),
        ("band", {}, "rule band needs band"),
        ("heads", {}, "rule heads needs heads"),
        ("heads", {"heads": []}, "no head is named"),
        ("column", {}, "rule column needs column"),
        ("column", {"column": 4}, "column: expected a head index 0–3, got 4"),
        ("sick", {"heads": ["L0H0"]}, "rule sick does not use heads"),
        ("matched", {"layers": (0, 1)}, "rule matched does not use layers"),
        ("band", {"band": (2, 4)}, "band: expected first–last within 0–3, got 2–4"),
        ("band", {"band": (3, 2)}, "got 3–2"),
        ("sick", {"layers": (0, 3)}, "layers: expected first–last within 0–2, got 0–3"),
        ("sick", {"seed": -1}, "seed: expected 0 to"),
        ("sick", {"max_cost": -1.0}, "max_cost: expected a finite number"),
        ("sick", {"band": (0, 9), "seed": -1}, "does not use band.*; band: .*; seed:"),
        ("band", {"band": (0, 0), "layers": (0, 1)}, "no sick head in the band"),
    ],
)
def test_what_does_not_fit_is_refused(rule: str, options: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan(patient(), rule, **options)


def test_heads_the_model_does_not_have_are_all_named() -> None:
    with pytest.raises(HeadError, match="L3H0, L9H9: the model has layers 0–2 and heads 0–3"):
        plan(patient(), "heads", heads=["L0H1", "L3H0", "L9H9"])


def test_every_rule_has_one_line_that_says_what_it_chooses() -> None:
    assert all((rule.select.__doc__ or "").splitlines()[0].endswith(".") for rule in RULES.values())


def of_model(family: str, mass: float = 0.9) -> tuple[Plan, object, object]:
    model = pico(family)
    layout = layout_of(model)
    grid = np.full((layout.layers, layout.heads), 0.1)
    grid[0, 0] = mass
    return plan(diagnosis_of(grid.tolist()), model=model), model, layout


def test_with_the_model_a_plan_carries_its_fingerprint() -> None:
    found, model, layout = of_model("bloom")
    assert found.fingerprint == fingerprint(model, layout)


@pytest.mark.parametrize(("family", "shared"), [("bloom", False), ("falcon-mq", True)])
def test_a_plan_says_where_keys_and_values_stay_frozen(family: str, shared: bool) -> None:
    found, _, _ = of_model(family)
    assert (
        any(note.startswith("L0H0: keys and values are shared") for note in found.notes) is shared
    )


def test_a_complete_group_is_operated_on_without_a_remark() -> None:
    model = pico("falcon-mq")
    layout = layout_of(model)
    grid = np.full((layout.layers, layout.heads), 0.1)
    grid[0] = 0.9
    found = plan(diagnosis_of(grid.tolist()), layout=layout)
    assert not any("shared" in note for note in found.notes)


def test_borderline_verdicts_are_remarked() -> None:
    from headsurgeon.diagnosis import diagnose
    from tests.head_stats import stats_of

    mass = np.array([[[0.4, 0.9]], [[0.7, 0.9]]])
    found = plan(diagnose(stats_of(mass), draws=100))
    assert "borderline verdicts: L0H0" in found.notes


def test_a_plan_says_when_a_norm_ties_the_heads_of_a_layer_together() -> None:
    layout = replace(layout_of(pico("bloom")), joint_norm=True)
    grid = np.full((layout.layers, layout.heads), 0.9)
    found = plan(diagnosis_of(grid.tolist()), layout=layout)
    assert any("rescales the other heads" in note for note in found.notes)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("llama", "every 2 heads of a layer share keys and values: H0–H1, H2–H3 and so on"),
        ("gemma", "all heads of a layer share one set of keys and values"),
        ("gpt2", None),
    ],
)
def test_a_plan_says_which_heads_share_keys_and_values_in_its_file_and_on_the_terminal(
    name: str, says: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    model = pico_family(name)
    # a whole group, so that nothing stays frozen where two share
    named = ["L1H2", "L1H3"]
    diagnosis = diagnose(measure(model, tokens(4, 16)), draws=100)
    made = plan(diagnosis, "heads", heads=named, model=model)
    show_plan(made)
    shown = " ".join(capsys.readouterr().out.split())
    for text in (made.to_yaml(), shown):
        assert ("keys and values" in text) == (says is not None)
        assert says is None or says in text
    assert any("stay frozen" in note for note in made.notes) == (name == "gemma")
