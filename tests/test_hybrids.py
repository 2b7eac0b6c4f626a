"""Models in which some layers have no attention: these have no heads, and no one counts any."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import headsurgeon as hs
from headsurgeon.arch import layout_of
from headsurgeon.cli import head_map as cli_head_map
from headsurgeon.cli.compare import comparison_figure, summary
from headsurgeon.cli.compare_table import comparison_table
from headsurgeon.cli.console import head_map
from headsurgeon.cli.summary import show_diagnosis
from headsurgeon.diagnosis import Diagnosis, Thresholds, diagnose, first_token_test
from headsurgeon.errors import HeadError, ModelError
from headsurgeon.evaluation import drift, recovery
from headsurgeon.heads import NO_ATTENTION, STATISTICS, HeadId
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.planning.planning import plan
from headsurgeon.report.data import HeadView
from headsurgeon.report.head_map_figure import head_map as drawn_map
from headsurgeon.report.study_before import verdicts
from tests.clinic import READING, checkpoint, examined, run, write_text
from tests.pico import tokens
from tests.pico_families import pico_family

# random heads have masses of 0.16 to 0.2 here, so with this limit some of them are sick
LOW = Thresholds(sink=0.18, dead=0.9)
WITHOUT = 2


@pytest.fixture(scope="module")
def found() -> Diagnosis:
    return diagnose(hs.measure(pico_family("lfm2"), tokens(6, 20)), LOW, draws=100)


def test_a_layer_without_attention_has_no_numbers_and_no_verdicts(found: Diagnosis) -> None:
    stats = found.stats
    assert stats.shape == (4, 4)
    assert stats.attends.tolist() == [True, True, False, True]
    for name in STATISTICS:
        assert np.isnan(stats.mean(name)[WITHOUT]).all()
        assert np.isfinite(stats.mean(name)[stats.attends]).all(), name
    assert (found.verdicts[WITHOUT] == NO_ATTENTION).all()
    assert not (found.verdicts[stats.attends] == NO_ATTENTION).any()


def test_it_is_neither_sick_nor_healthy_nor_counted(found: Diagnosis) -> None:
    assert 0 < len(found.sick) < 12
    assert found.heads == sum(found.counts.values()) == 12
    assert found.per_layer[WITHOUT] == 0
    assert not found.borderline[WITHOUT].any()
    assert found.sweep([0.0]) == {0.0: 12}
    assert all(head.layer != WITHOUT for head in found.sick)
    line = summary(examined(found))
    assert line["heads"] == 12
    assert line["sick_share"] == len(found.sick) / 12
    assert np.isfinite(line["null_mass"]).all()
    assert found.mass_slope_correlation is None


def test_a_sound_layer_that_is_broken_is_still_an_error(found: Diagnosis) -> None:
    values = {name: array.copy() for name, array in found.stats.values.items()}
    values["entropy"][:, 1, 3] = np.nan
    with pytest.raises(ModelError, match="L1H3"):
        diagnose(found.stats.replace(values=values))


def test_files_hold_it_as_null_and_as_empty_cells(found: Diagnosis, tmp_path: Path) -> None:
    found.save(tmp_path / "diagnosis.json")
    content = json.loads((tmp_path / "diagnosis.json").read_text())
    assert content["null_mass"][WITHOUT] == [None] * 4
    assert content["verdicts"][WITHOUT] == [NO_ATTENTION] * 4
    again = Diagnosis.load(tmp_path / "diagnosis.json")
    np.testing.assert_array_equal(again.verdicts, found.verdicts)
    np.testing.assert_array_equal(again.stats.attends, found.stats.attends)
    frame = again.to_frame()
    assert len(frame) == 16
    assert frame[frame["layer"] == WITHOUT]["first_token_mass"].isna().all()


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("sick", {}),
        ("column", {"column": 1}),
        ("band", {"band": (0, 3)}),
        ("random", {}),
        ("matched", {}),
    ],
)
def test_no_rule_chooses_or_watches_it(
    found: Diagnosis, rule: str, options: dict[str, object]
) -> None:
    chosen = plan(found, rule, **options)  # type: ignore[arg-type]
    assert {head.id.layer for head in chosen.heads} <= {0, 1, 3}


def test_naming_a_head_of_it_says_why_not(found: Diagnosis) -> None:
    model = pico_family("lfm2")
    why = r"L2H1: there is no attention in that layer.* 0, 1, 3"
    with pytest.raises(HeadError, match=why):
        plan(found, "heads", heads=["L0H0", "L2H1"])
    with pytest.raises(HeadError, match=why):
        hs.operate(model, Plan(model="pico", rule="heads", heads=(PlannedHead(id=HeadId(2, 1)),)))
    with pytest.raises(HeadError, match=why):
        hs.ablate(model, ["L2H1"], tokens(2, 12))


def test_drift_and_recovery_leave_it_out(found: Diagnosis) -> None:
    model = pico_family("lfm2")
    windows = hs.Windows(tokens(4, 20), ("a", "b", "c", "d"), "text", "dev", "none", 0, "0")
    before = hs.measure(model, windows)
    patient = hs.operate(model, plan(found, "heads", heads=["L1H0", "L1H1"]))
    after = hs.measure(model, windows)
    changed = drift(before, after, patient.plan)
    groups = (changed.transitions[name] for name in ("operated", "watched", "outside"))
    counted = sum(sum(group.values()) for group in groups)
    assert counted == 12
    # layer 0, and the other two of layer 1, keep their input; those of layer 3 do not
    assert int(changed.structural_zeros.sum()) == 6
    assert changed.could_drift == 4
    assert all(head.layer == 3 for head in changed.drifted)
    assert recovery(patient, windows, null_seeds=(1, 2)).recovered == ()


def test_it_is_not_tested_for_what_its_sinks_follow() -> None:
    model = pico_family("lfm2")
    batch = tokens(3, 12)
    low = Thresholds(sink=0.01, dead=0.9)
    test = first_token_test(lambda ids: hs.measure(model, ids), batch, [5], low)
    assert len(test.heads) == 12
    assert all(head.layer != WITHOUT for head in test.heads)


def test_the_terminal_knows_it_by_the_same_name() -> None:
    assert cli_head_map.NO_ATTENTION == NO_ATTENTION


def test_maps_and_tables_show_it_as_such(
    found: Diagnosis, capsys: pytest.CaptureFixture[str]
) -> None:
    for width in (40, 100):
        console = Console(width=width, record=True)
        with console.capture() as captured:
            console.print(head_map(found))
        lines = captured.get().splitlines()
        [line] = [line for line in lines if line.startswith(f"L{WITHOUT}")]
        assert set(line.removeprefix(f"L{WITHOUT}")) == {" ", "·"}
        assert "· no attention" in captured.get()
    show_diagnosis(found)
    said = capsys.readouterr().out
    assert "in 1 of 4 layers, which are left out: L2" in " ".join(said.split())
    assert "nan" not in said
    console = Console(width=100)
    with console.capture() as captured:
        console.print(comparison_table([summary(examined(found))], [None]))
    assert "4 (3 attend) × 4" in captured.get()
    assert "nan" not in captured.get()
    assert "nan" not in verdicts({"code": found}).note
    view = HeadView.of("pico", found.stats, found.verdicts, found.borderline)
    for figure in (drawn_map([view]), comparison_figure([examined(found)])):
        figure.draw_without_rendering()
        texts = [text.get_text() for text in figure.axes[0].texts]
        assert texts.count("·") == 4
        assert "· no attention" in figure.get_supxlabel()


def test_the_command_line_diagnoses_a_hybrid_and_says_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "hybrid", pico_family("lfm2"))
    write_text(tmp_path / "docs")
    said = run("diagnose", "hybrid", *READING, "--output", "out", "--first-token-test")
    assert said.exit_code == 0, said.stderr
    assert "in 1 of 4 layers, which are left out: L2" in " ".join(said.stdout.split())
    assert Path("out/layers.csv").read_text().splitlines()[3].startswith("2,,0.")
    said = run("inspect", "hybrid", "L2H0", "--text", "the cat sat")
    assert said.exit_code == 2
    assert "there is no attention in that layer" in said.stderr
    said = run("inspect", "hybrid", "L3H0", "--text", "the cat sat")
    assert said.exit_code == 0, said.stderr


def test_the_layout_knows_its_attention_layers() -> None:
    assert layout_of(pico_family("lfm2")).attention_layers == (0, 1, 3)
    assert layout_of(pico_family("llama")).attention_layers == (0, 1)
