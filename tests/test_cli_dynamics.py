"""`headsurgeon dynamics` on runs, on a study's cells, and on what is neither."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import headsurgeon as hs
from headsurgeon.evaluation import PairedRuns
from tests.clinic import run
from tests.pictures import coloured
from tests.test_train_log import logged


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dynamics")
    logged(folder / "first", evaluate_every=1)
    logged(folder / "second", seed=5)
    logged(folder / "blind", statistics_windows=0)
    return folder


@pytest.fixture
def home(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(runs, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_shown_and_written_without_its_model(home: Path) -> None:
    said = run("dynamics", "runs/first", "--output", "out")
    assert said.exit_code == 0, said.stderr
    for title in (
        "Lowest loss on dev text",
        "Change of first-token mass",
        "by column",
        "by distance",
    ):
        assert title in said.stdout
    assert "Shape over time" in said.stdout
    names = {path.name for path in Path("out/first").iterdir()}
    results = {"redistribution.json", "sweep.json", "heads.csv"}
    pictures = {"change.png", "watched.png", "columns-watched.png", "columns-outside.png"}
    assert names == {*results, *pictures, "loss.png"}
    assert all(coloured(Path("out/first", name)) > 0.001 for name in pictures)
    found = hs.Redistribution.load("out/first/redistribution.json")
    assert found.steps == tuple(range(8))
    assert hs.Sweep.load("out/first/sweep.json").run == "first"
    rows = list(csv.DictReader(Path("out/first/heads.csv").read_text().splitlines()))
    assert len(rows) == 12 * 8
    assert {row["zone"] for row in rows} == {"operated", "watched", "outside"}
    assert sum(row["can_change"] == "false" for row in rows) == 7 * 8


def test_it_is_written_again_over_its_own_files_and_no_others(home: Path) -> None:
    for _ in range(2):
        said = run("dynamics", "runs/first", "--at", "1,3,epoch:1", "--output", "out")
        assert said.exit_code == 0, said.stderr
    # a pass is two steps and a half
    assert hs.Redistribution.load("out/first/redistribution.json").steps == (1, 2, 3)
    said = run("dynamics", "runs/second", "--output", "runs/first")
    assert said.exit_code == 2
    assert "holds something else" in said.stderr


def test_runs_on_one_text_are_compared_and_one_without_heads_is_named(home: Path) -> None:
    said = run("dynamics", "runs/first", "runs/second", "runs/blind", "--output", "out")
    assert said.exit_code == 0, said.stderr
    assert "Runs beside each other" in said.stdout
    assert "note: no heads" in said.stderr
    paired = PairedRuns.load("out/paired-1.json")
    assert paired.runs == ("first", "second")
    assert json.loads(Path("out/dynamics.json").read_text())["paired"] == [["first", "second"]]
    assert {path.name for path in Path("out/blind").iterdir()} == {"sweep.json", "loss.png"}


def test_the_folder_of_a_study_stands_for_its_trained_cells(home: Path) -> None:
    for name in ("paper-code-0", "gradient_only-code-0"):
        shutil.copytree("runs/second", Path("study/cells", name))
    Path("study/cells/untouched").mkdir()
    said = run("dynamics", "study")
    assert said.exit_code == 0, said.stderr
    assert "paper-code-0" in said.stdout
    assert "+1.00" in said.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["runs/first", "runs/../runs/first"], "named more than once"),
        (["runs"], "no run lies there"),
        (["nowhere"], "no run lies there"),
        (["runs/second", "--at", "1"], "heads were not measured at step 1, but at 0, 3, 6, 7"),
        (["runs/second", "--at", "soon"], "--at: expected steps from 0 up"),
        (["runs/first", "--output", "runs/first/log.jsonl"], "is a file; expected a folder"),
    ],
)
def test_what_cannot_be_read_or_written_is_said(words: list[str], says: str, home: Path) -> None:
    said = run("dynamics", *words)
    assert said.exit_code == 2
    assert says in " ".join(said.stderr.split())
