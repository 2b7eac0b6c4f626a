"""Where attention went: shapes, trends, zones and distances of masses whose answer is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headsurgeon as hs
from headsurgeon.errors import InputError
from headsurgeon.evaluation.course import correlations, shape_of, trend_of
from headsurgeon.evaluation.redistribution import redistribution_from
from headsurgeon.heads import HeadId
from headsurgeon.paper import READING_ERROR, change_from_figure, head_list, mass_from_figure


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ([0.1, 0.2], "too few moments"),
        ([0.029, -0.029, 0.029], "stable"),
        ([0.03, 0.03, 0.03], "plateau"),
        ([0.02, 0.04, 0.06], "rising"),
        ([-0.02, -0.04, -0.06], "falling"),
        # a step of exactly 0.005 is none; all lie within 0.03
        ([0.10, 0.105, 0.11], "plateau"),
        ([0.10, 0.15, 0.08, 0.16], "oscillating"),
        # a rest between two rises counts as two changes of sign, as in the released code
        ([0.02, 0.06, 0.06, 0.12], "oscillating"),
        ([0.02, 0.08, 0.08], "mixed"),
        ([0.12, 0.02, 0.02], "mixed"),
        # a fall and a rest are both no rise
        ([0.16, 0.08, 0.08, 0.01], "mixed"),
    ],
)
def test_each_planted_course_has_its_shape(changes: list[float], shape: str) -> None:
    assert shape_of(changes) == shape


@pytest.mark.parametrize(
    ("means", "trend"),
    [
        ([0.1], "too few moments"),
        ([0.05, 0.9, 0.071], "spreading"),
        ([0.071, 0.0, 0.05], "recovering"),
        ([0.05, 0.9, 0.06], "stable"),
    ],
)
def test_a_trend_is_of_first_and_last_alone(means: list[float], trend: str) -> None:
    assert trend_of(means) == trend


def test_the_trends_of_the_papers_columns_are_its_own() -> None:
    from headsurgeon.paper import published

    for number in published(quantity=None, stage="C4 E3, 6, 9, 12, 15"):
        said = number.remark.split(";")[0]
        if said != "cannot move":
            assert trend_of(number.value) == said, number.quantity  # type: ignore[arg-type]


def test_columns_that_never_move_correlate_with_nothing() -> None:
    rising = np.array([0.0, 0.1, 0.2])
    found = correlations(np.stack([rising, -rising, 0 * rising]))
    assert found[0, 1] == pytest.approx(-1.0)
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()
    assert np.isnan(correlations(np.ones((2, 2)))).all()


# --- zones ---------------------------------------------------------------------------------------

BEFORE = np.array([[0.2, 0.2, 0.2, 0.2], [0.2, 0.7, 0.9, 0.3], [0.45, 0.6, 0.8, 0.3]])
OPERATED = (HeadId(1, 2), HeadId(2, 2))
WATCHED = (HeadId(1, 3), HeadId(2, 3))


def moved(**changes: float) -> np.ndarray:
    mass = BEFORE.copy()
    for name, change in changes.items():
        mass[HeadId.parse(name)] += change
    return mass


def planted(*masses: np.ndarray, **options: Any) -> hs.Redistribution:
    steps = options.pop("steps", tuple(range(len(masses))))
    return redistribution_from(
        options.pop("before", BEFORE), np.stack(masses), steps, OPERATED, WATCHED, **options
    )


FIRST = moved(L1H2=-0.8, L2H2=-0.7)
SECOND = moved(L1H2=-0.7, L2H2=-0.7, L2H0=0.1, L2H1=-0.2, L2H3=0.03)
THIRD = moved(L1H2=-0.6, L2H2=-0.7, L2H0=0.2, L2H1=-0.1, L2H3=0.08)


def test_zones_have_both_denominators_and_the_worst_signed() -> None:
    outside = planted(FIRST, SECOND).zones["outside"]
    assert [zone.drifted for zone in outside] == [0, 2]
    last = outside[-1]
    assert (last.heads, last.could_change) == (8, 2)
    assert last.mean == pytest.approx(0.3 / 8)
    assert last.mean_could == pytest.approx(0.3 / 2)
    assert last.mean_signed == pytest.approx(-0.1 / 2)
    assert (last.worst, last.worst_change) == (HeadId(2, 1), pytest.approx(-0.2))
    assert (last.newly_sick, last.left_sick) == (1, 1)
    watched = planted(FIRST, SECOND, THIRD).zones["watched"]
    assert [(zone.heads, zone.could_change, zone.drifted) for zone in watched] == [
        (2, 1, 0),
        (2, 1, 0),
        (2, 1, 1),
    ]
    assert planted(FIRST).zones["operated"][0].could_change == 2


def test_where_more_than_heads_was_trained_every_head_could_change() -> None:
    assert planted(FIRST, SECOND, confined=False).zones["outside"][-1].could_change == 8


def test_a_layer_whose_heads_move_together_is_not_fixed() -> None:
    last = planted(FIRST, moved(L1H0=0.01)).zones["outside"][-1]
    # L0 alone is
    assert last.could_change == 4


def test_a_change_of_exactly_the_threshold_is_no_drift() -> None:
    assert planted(moved(L2H0=0.05)).zones["outside"][0].drifted == 0
    assert planted(moved(L2H0=0.0501)).zones["outside"][0].drifted == 1


def test_without_an_operated_head_all_is_outside_or_watched() -> None:
    found = redistribution_from(BEFORE, SECOND[None], [3], (), WATCHED)
    assert found.zones["operated"][0].heads == 0
    assert np.isnan(found.zones["operated"][0].mean)
    assert found.zones["operated"][0].worst is None
    assert found.zones["outside"][0].could_change == 10
    assert (found.layers_above, found.heads_aside) == ({}, {})


def test_heads_without_attention_count_nowhere() -> None:
    before, after = BEFORE.copy(), SECOND.copy()
    before[0], after[0] = np.nan, np.nan
    found = planted(after, before=before)
    assert found.zones["outside"][0].heads == 4
    assert "L0H0" not in found.shapes
    assert [course.head for course in found.columns if course.zone == "outside"] == [0, 1]
    assert set(found.layers_above) == {0, 1}


def test_a_mass_that_is_no_number_at_one_moment_is_refused() -> None:
    broken = SECOND.copy()
    broken[2, 0] = np.nan
    with pytest.raises(InputError, match="the mass of L2H0 is no number at some moments"):
        planted(FIRST, broken)


def test_moments_out_of_order_and_masses_of_another_model_are_refused() -> None:
    with pytest.raises(InputError, match="expected steps that rise"):
        planted(FIRST, SECOND, steps=(3, 3))
    with pytest.raises(InputError, match="are of different shapes"):
        planted(FIRST).replace(mass=FIRST[None, :2])
    with pytest.raises(InputError, match="heads were not measured at step 7, but at 0, 1"):
        planted(FIRST, SECOND).at([7])


def test_distances_are_from_the_lowest_layer_and_the_nearest_operated_index() -> None:
    found = planted(FIRST, SECOND)
    assert {d: (g.heads, g.drifted) for d, g in found.layers_above.items()} == {
        -1: (4, 0),
        0: (3, 0),
        1: (3, 2),
    }
    assert {d: (g.heads, g.drifted) for d, g in found.heads_aside.items()} == {
        0: (1, 0),
        1: (6, 1),
        2: (3, 1),
    }


# --- over time -----------------------------------------------------------------------------------


def test_shapes_and_trends_are_of_what_training_did() -> None:
    course = [moved(L2H0=0.02 * n, L2H1=-0.02 * n, L2H3=0.03 * n) for n in range(4)]
    # step 0 is the operation, which moves everything at once
    course[0] = moved(L2H0=0.4, L2H1=0.3, L2H3=0.3)
    found = planted(*course)
    assert {name: found.shapes[name] for name in ("L2H0", "L2H1", "L2H3", "L1H0")} == {
        "L2H0": "rising",
        "L2H1": "falling",
        "L2H3": "rising",
        "L1H0": "cannot change",
    }
    columns = {(each.zone, each.head): each for each in found.columns}
    third = columns["watched", 3]
    assert (third.heads, third.could_change, third.trend) == (2, 1, "spreading")
    assert third.mean == pytest.approx((0.015, 0.03, 0.045))
    assert third.mean_could == pytest.approx((0.03, 0.06, 0.09))
    assert columns["outside", 2].trend == "cannot change"
    assert np.isnan(columns["outside", 2].mean_could).all()
    heads, r = found.correlations("outside")
    assert heads == (0, 1, 2, 3)
    assert r[0, 1] == pytest.approx(-1.0)
    assert np.isnan(r[2]).all()


def test_some_moments_can_be_chosen() -> None:
    found = planted(FIRST, SECOND, THIRD, epochs=(0.0, 0.5, 1.0)).at([2, 0])
    assert (found.steps, found.epochs) == ((0, 2), (0.0, 1.0))
    assert set(found.shapes.values()) <= {"too few moments", "cannot change"}


def test_it_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    before, after = BEFORE.copy(), SECOND.copy()
    before[0], after[0] = np.nan, np.nan
    found = planted(after, before=before, epochs=(0.5,), run="first", model="pico")
    found.save(tmp_path / "redistribution.json")
    same = hs.Redistribution.load(tmp_path / "redistribution.json")
    assert np.array_equal(same.mass, found.mass, equal_nan=True)
    assert (same.run, same.steps, same.operated) == (found.run, found.steps, found.operated)
    assert str(same.zones) == str(found.zones)
    assert same.shapes == found.shapes


# --- the paper's own -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "outside", "mean", "watched", "worst"),
    [
        ("curated", 77, 0.0434, 9, HeadId(23, 14)),
        ("wikipedia", 65, 0.0368, 6, HeadId(18, 8)),
        ("c4", 58, 0.0322, 5, HeadId(20, 7)),
    ],
)
def test_the_papers_figures_recounted(
    run: Any, outside: int, mean: float, watched: int, worst: HeadId
) -> None:
    heads = head_list("bloom-1b7-pass1")
    before = np.nan_to_num(mass_from_figure("1b7"), nan=0.05)
    after = before + change_from_figure(run)
    found = redistribution_from(
        before, after[None], [396], heads.operate, heads.watch, rounding=READING_ERROR
    )
    out, inside = found.zones["outside"][0], found.zones["watched"][0]
    assert (out.heads, out.could_change, out.drifted) == (258, 169, outside)
    # a cell that did not change reads +0.002, and 89 of 258 cannot
    assert out.mean == pytest.approx(mean, abs=4e-4)
    assert out.worst == worst
    assert (inside.heads, inside.could_change, inside.drifted) == (18, 13, watched)
