"""The figures of a run's dynamics: what is drawn is what was counted, also in odd cases."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import headsurgeon as hs
from headsurgeon.errors import InputError
from headsurgeon.evaluation import PairedRuns, paired_runs, redistribution_from
from headsurgeon.heads import HeadId
from headsurgeon.paper import head_list, mass_from_figure, published_number
from headsurgeon.report.change_figures import ChangePanel, change_map, watched_map
from headsurgeon.report.dynamics_figures import column_lines, sweep_figure
from headsurgeon.report.dynamics_tables import paired_table, shape_table, sweep_table, zone_table
from headsurgeon.report.mass_figure import MassPanel, mass_histogram
from headsurgeon.report.style import png
from tests.pictures import coloured
from tests.test_redistribution import BEFORE, FIRST, OPERATED, SECOND, THIRD, WATCHED, planted
from tests.test_sweep import curve, sweep


def texts(figure: Figure) -> list[str]:
    png(figure)
    return [t.get_text() for t in figure.findobj(Text) if isinstance(t, Text) and t.get_text()]


def test_a_map_has_numbers_in_untouched_heads_that_changed_much_and_the_counts() -> None:
    panel = ChangePanel.of(planted(FIRST, THIRD))
    figure = change_map([panel])
    said = texts(figure)
    # L2H0 by +0.2; L2H1 by −0.1 and the operated ones have none
    assert [text for text in said if text.startswith(("+.", "−."))] == ["+.20"]
    assert "outside: 2 of 8 beyond 0.05 (2 can), mean |Δ| 0.0375" in panel.title
    assert "watched: 1 of 2 beyond 0.05 (1 can), mean |Δ| 0.0400" in panel.title
    assert coloured(png(figure)) > 0.02


def test_the_line_around_the_papers_zone_is_its_rectangle() -> None:
    heads = head_list("bloom-1b7-pass1")
    mass = np.nan_to_num(mass_from_figure("1b7"), nan=0.05)
    found = redistribution_from(mass, mass[None], [396], heads.operate, heads.watch)
    figure = change_map([ChangePanel.of(found)])
    (line,) = figure.axes[0].collections
    corners = np.concatenate(line.get_segments())  # type: ignore[attr-defined]
    assert (corners.min(axis=0).tolist(), corners.max(axis=0).tolist()) == (
        [8.5, 4.5],
        [15.5, 22.5],
    )
    assert len(line.get_segments()) == 2 * (7 + 18)  # type: ignore[attr-defined]


def test_maps_of_heads_without_attention_or_without_an_operation_are_drawn() -> None:
    before, after = BEFORE.copy(), SECOND.copy()
    before[0], after[0] = np.nan, np.nan
    png(change_map([ChangePanel.of(planted(after, before=before))] * 2))
    png(change_map([ChangePanel.of(redistribution_from(BEFORE, SECOND[None], [3], ()))]))


def test_the_watched_map_has_r_where_a_head_was_operated_on() -> None:
    said = texts(watched_map(planted(FIRST, THIRD)))
    assert said.count("R") == 2
    assert {"+0.00", "+0.08"} <= set(said)
    assert {"L1", "L2", "H2", "H3"} <= set(said)


def test_column_lines_say_how_many_can_change() -> None:
    found = planted(FIRST, SECOND, THIRD)
    assert "H3 (1 of 2 can): spreading" in texts(column_lines(found))
    said = texts(column_lines(found, "outside"))
    assert "H2 (0 of 1 can): cannot change" in said
    assert "drifted" in said


def test_a_sweep_marks_minimum_and_interval_and_names_every_line() -> None:
    figure = sweep_figure(sweep(curve(noise=0.05), curve(name="held", split="test")))
    said = "\n".join(texts(figure))
    assert "minimum 1.000 at step 2 [2, 2]" in said
    assert "−0.800 against untouched" in said
    assert "worse for good from step 3" in said
    assert {"dev", "held (test)", "untouched: 1.800", "perplexity"} <= set(said.split("\n"))


@pytest.mark.parametrize("course", [[1.0], [1.0, 1.0], [2.0, 1.0], [1.0, 2.0]])
def test_short_and_level_sweeps_are_drawn(course: list[float]) -> None:
    png(sweep_figure(sweep(curve(course, documents=1).replace(documents=None, untouched=np.nan))))


def test_the_histogram_of_the_paper_has_50_bins() -> None:
    mass = mass_from_figure("1b7")
    mass = mass[np.isfinite(mass)]
    figure = mass_histogram([MassPanel.of("stock", mass)], bins=50, title="t")
    bars = [patch for patch in figure.axes[0].patches if patch.get_width() == pytest.approx(0.02)]  # type: ignore[attr-defined]
    # those that are not sick, and the sick on top
    assert len(bars) == 2 * 50
    heights = np.array([bar.get_height() for bar in bars]).reshape(2, 50).sum(axis=0)  # type: ignore[attr-defined]
    assert sum(heights) == len(mass)
    known = np.array(
        published_number("bigscience/bloom-1b7", "stock", "histogram of mass in 50 bins").value
    )
    # masses are read to ±0.005 of bins of 0.02
    assert np.abs(np.cumsum(heights) - np.cumsum(known)).max() <= 8


# --- tables and pairs ----------------------------------------------------------------------------


def three() -> list[hs.Redistribution]:
    alike = {"measured_on": "dev", "steps": (0, 10, 20)}
    surgery = planted(FIRST, SECOND, THIRD, run="surgery", **alike)
    halved = [BEFORE + 0.5 * (mass - BEFORE) for mass in (FIRST, SECOND, THIRD)]
    control = planted(*halved, run="control", **alike)
    full = redistribution_from(
        *(BEFORE, np.stack([SECOND, BEFORE - 0.03 * (THIRD - 0.5)]), (10, 30), OPERATED, WATCHED),
        run="full",
        confined=False,
        measured_on="dev",
    )
    return [surgery, control, full]


def test_runs_are_paired_by_step_with_the_first() -> None:
    found = paired_runs(three())
    assert (found.runs, found.steps) == (("surgery", "control", "full"), (10,))
    assert found.agreement[:, 0] == pytest.approx([1.0, 1.0, 1.0])
    # L2H0, L2H1, L2H3: 0.1, 0.2 and 0.03, and the half of it
    assert found.larger[:, 0] == pytest.approx([0.0, -0.055, 0.0])
    groups = [found.groups(run, "outside")[0] for run in found.runs]
    assert [group.drifted for group in groups] == [2, 1, 2]
    assert [group.could_change for group in groups] == [2, 2, 8]


def test_runs_on_other_models_texts_or_steps_are_not_paired() -> None:
    first, second, _ = three()
    for other in (second.replace(model="other"), second.replace(measured_on="other")):
        with pytest.raises(InputError, match="different models or texts"):
            paired_runs([first, other])
    with pytest.raises(InputError, match="at no step of all of them"):
        paired_runs([first.at([0]), second.at([10])])
    with pytest.raises(InputError, match="at least two runs"):
        paired_runs([first])


def test_pairs_come_back_from_their_file(tmp_path: Path) -> None:
    found = paired_runs(three()[:2])
    found.save(tmp_path / "paired.json")
    same = PairedRuns.load(tmp_path / "paired.json")
    assert np.array_equal(same.agreement, found.agreement, equal_nan=True)
    assert str(same.zones) == str(found.zones)


def test_tables_say_what_was_counted() -> None:
    surgery = three()[0]
    rows: dict[Any, tuple[str, ...]] = {row[:2]: row for row in zone_table(surgery).rows}
    assert rows["outside", "20"][2:] == (
        *("8 (2)", "2", "0.0375 (0.1500)", "L2H0 +0.200", "+1 −1"),
    )
    assert (
        dict(zip(shape_table(surgery).columns, shape_table(surgery).rows[0], strict=True))[
            "too few moments"
        ]
        == "1"
    )
    paired = paired_table(paired_runs(three())).rows
    assert paired[1] == ("10", "control", "0/1, 0.0150", "1/2, 0.0750", "+1.00", "−0.0550")
    dev, held = sweep_table([sweep(curve(), curve(name="held", split="test"))]).rows
    assert (*dev[:4], dev[6]) == ("first", "dev", "2", "2–2", "3")
    assert (held[1], held[5][:5]) == ("held", "−0.80")


def test_heads_named_twice_are_operated() -> None:
    found = redistribution_from(BEFORE, FIRST[None], [1], OPERATED, (*WATCHED, HeadId(1, 2)))
    assert found.zones["watched"][0].heads == 2
