"""What the paper reports, as data: lists that add up, numbers with their grade, its figures."""

import numpy as np
import pytest

from headsurgeon.errors import SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.paper import (
    change_from_figure,
    h5_curve_from_figure,
    head_list,
    head_lists,
    mass_from_figure,
    published,
    published_number,
    reported_diagnosis,
)

MODEL = "bigscience/bloom-1b7"


def test_the_lists_have_as_many_heads_as_the_paper_says() -> None:
    counts = {name: (len(each.operate), len(each.watch)) for name, each in head_lists().items()}
    assert counts == {
        "bloom-1b7-pass1": (108, 18),
        "bloom-1b7-pass2": (39, 0),
        "bloom-1b7-h5": (126, 18),
        "bloom-1b7-newly-sick": (0, 18),
        "bloom-1b7-recovered-alone": (0, 11),
    }


def test_pass_1_and_its_frozen_heads_fill_the_rectangle() -> None:
    heads = {*head_list("bloom-1b7-pass1").operate, *head_list("bloom-1b7-pass1").watch}
    assert heads == {HeadId(layer, head) for layer in range(5, 23) for head in range(9, 16)}


def test_the_h5_list_is_that_of_pass_1_and_the_column() -> None:
    column = {HeadId(layer, 5) for layer in range(5, 23)}
    h5, first = head_list("bloom-1b7-h5"), head_list("bloom-1b7-pass1")
    assert set(h5.operate) == {*first.operate} | column
    assert h5.watch == first.watch


def test_pass_2_is_what_was_newly_sick_and_what_stayed_so() -> None:
    second, newly = head_list("bloom-1b7-pass2").operate, head_list("bloom-1b7-newly-sick").watch
    alone = head_list("bloom-1b7-recovered-alone").watch
    assert set(newly) < set(second)
    assert len({*second} - {*newly}) == 21
    assert not set(alone) & {*second, *head_list("bloom-1b7-pass1").operate}
    mass = mass_from_figure("1b7")
    # masses are read to ±0.005
    assert all(mass[head] > 0.495 for head in {*second, *alone} - {*newly})
    assert all(mass[head] < 0.505 for head in newly)


def test_the_stock_masses_of_the_operated_heads_are_sick() -> None:
    mass = mass_from_figure("1b7")
    assert all(mass[head] > 0.5 for head in head_list("bloom-1b7-pass1").operate)
    assert all(mass[head] < 0.5 for head in head_list("bloom-1b7-pass1").watch)


def test_an_unknown_list_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"known are bloom-1b7-pass1, "):
        head_list("bloom-1b7")


def test_figures_have_the_shape_of_their_model() -> None:
    assert {size: mass_from_figure(size).shape for size in ("560m", "1b7", "3b", "7b1")} == {  # type: ignore[arg-type]
        "560m": (24, 16),
        "1b7": (24, 16),
        "3b": (30, 32),
        "7b1": (30, 32),
    }
    for run in ("curated", "wikipedia", "c4"):
        assert change_from_figure(run).shape == (24, 16)  # type: ignore[arg-type]
    curve = h5_curve_from_figure()
    assert (len(curve), int(np.nanargmin(curve))) == (56, 42)


def test_every_number_is_read_and_those_shown_agree_with_each_other() -> None:
    assert {number.grade for number in published()} == {"A", "B", "C", "D"}
    counts = [published_number(MODEL, "stock", name).number for name in ("healthy", "low-entropy")]
    sick = published_number(MODEL, "stock", "sick heads").number
    assert sum(counts) + sick == 384
    assert published_number(MODEL, "stock", "sick share").number == pytest.approx(
        sick / 384, abs=5e-3
    )
    bins = published_number(MODEL, "stock", "histogram of mass in 50 bins").value
    assert np.sum(bins) == 384  # type: ignore[arg-type]
    assert np.sum(bins[25:]) == sick  # type: ignore[index,arg-type]


def test_contradicted_numbers_say_by_what() -> None:
    assert all(number.remark for number in published() if number.grade == "C")


def test_a_number_that_is_not_the_only_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="there are several, on 8 short texts, 12 held-out"):
        published_number(MODEL, "stock", "perplexity")
    with pytest.raises(SettingsError, match="there is none"):
        published_number(MODEL, "stock", "beauty")
    with pytest.raises(SettingsError, match="is no one number"):
        _ = published_number(MODEL, "stock", "band").number


def test_what_stands_beside_a_diagnosis_says_how_far_it_can_be_trusted() -> None:
    found = reported_diagnosis(MODEL)
    assert found is not None
    assert found.counts == {"healthy": 242, "sink": 136, "dead": 3, "low-entropy": 3}
    assert "probe 16.99 (B) → 15.13 (C) → 15.10 (B)" in found.remarks[2]
    assert any("C contradicted" in remark for remark in found.remarks)
    assert reported_diagnosis("gpt2") is None
    small = reported_diagnosis("bigscience/bloom-560m")
    assert small is not None
    assert (small.counts, small.remarks) == (None, ())
