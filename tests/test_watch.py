"""`headsurgeon watch`: what is there is shown, also while somebody else writes it."""

import io
import json
import math
import os
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from headsurgeon.cli import watch as command
from headsurgeon.cli.console import out
from headsurgeon.cli.watch import curve, frame
from headsurgeon.errors import InputError
from headsurgeon.report.live import RunState, Standing, Watcher
from headsurgeon.study import Study
from headsurgeon.training.log import read_entries
from tests.clinic import run
from tests.studies import with_arms
from tests.study_files import finished_study
from tests.test_train_log import logged

HOSTILE = "<b>[bold]x[/bold]\x1b[31m\u202ecell"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch")
    logged(folder / "run", evaluate_every=2)
    finished_study(folder)
    return folder


@pytest.fixture
def home(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def unfinished(folder: Path, lines: int, tail: str = "") -> None:
    """The run as it was while it went on: some lines of its log, and one that is being written."""
    log = folder / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:lines]) + tail)
    content = json.loads((folder / "run.json").read_text())
    content["result"] = None
    (folder / "run.json").write_text(json.dumps(content))


def test_a_finished_run_is_shown_once_where_there_is_no_terminal(home: Path) -> None:
    for words in (["run"], ["run", "--once"]):
        shown = run("watch", *words)
        assert shown.exit_code == 0, shown.stderr
        for said in ("1 done", "7 of 7 steps (100 %)", "dev loss", "untouched", "sick"):
            assert said in shown.stdout
        assert "time left" not in shown.stdout


def test_a_run_in_progress_has_steps_left_and_time_left(home: Path) -> None:
    unfinished(home / "run", 6)
    (found,) = Watcher(home / "run").look().runs
    assert (found.state, found.step, found.steps) == ("running", 3, 7)
    assert found.seconds_left > 0.0
    assert [step for step, _ in found.dev] == [0, 2]
    assert found.mass is not None
    assert "time left" in run("watch", "run").stdout


@pytest.mark.parametrize(
    "tail", ['{"kind": "step", "st', '{"kind": "start", "a": {"b": 1}', "{", " "]
)
def test_a_line_that_is_being_written_is_not_there_yet(tail: str, home: Path) -> None:
    unfinished(home / "run", 6, tail)
    assert len(read_entries(home / "run/log.jsonl")) == 6
    assert Watcher(home / "run").look().runs[0].step == 3


def test_a_run_without_a_log_and_one_whose_log_is_damaged_are_still_running(home: Path) -> None:
    unfinished(home / "run", 0)
    assert Watcher(home / "run").look().runs[0].state == "running"
    assert run("watch", "run").exit_code == 0
    (home / "run/log.jsonl").write_text("no JSON\n")
    assert run("watch", "run").exit_code == 0
    os.remove(home / "run/log.jsonl")
    assert "1 running" in run("watch", "run").stdout


def test_a_quiet_run_is_said_to_be_quiet(home: Path) -> None:
    unfinished(home / "run", 6)
    before = time.time() - 4000
    os.utime(home / "run/log.jsonl", (before, before))
    assert "stopped, or at a long evaluation" in run("watch", "run").stdout


def test_passes_are_rows_of_their_own(home: Path) -> None:
    for number in (1, 2, 10):
        shutil.copytree("run", f"passes/pass-{number}")
    unfinished(home / "passes/pass-10", 6)
    standing = Watcher(home / "passes").look()
    assert [each.name for each in standing.runs] == ["pass-1", "pass-2", "pass-10"]
    assert standing.shown is not None
    assert standing.shown.name == "pass-10"


def test_a_study_has_a_row_for_every_cell_and_its_decisions(home: Path) -> None:
    watcher = Watcher(home / "study")
    standing = watcher.look()
    assert {each.state for each in standing.runs} == {"done"}
    assert [each.contrast for each in standing.decisions] == ["harms"]
    assert watcher.look().decisions == standing.decisions
    shown = run("watch", "study")
    assert "prose" in shown.stdout
    assert "untrained-0" in shown.stdout
    # a cell whose file is being written is not done yet
    (home / "study/cells/untrained-0/cell.json").write_text('{"kind": "ce')
    standing = watcher.look()
    assert [each.state for each in standing.runs] == ["done", "running"]
    assert not standing.ended
    shutil.rmtree(home / "study/cells")
    assert {each.state for each in watcher.look().runs} == {"waiting"}
    assert "not known yet" in run("watch", "study").stdout


def test_a_search_for_a_learning_rate_is_shown_while_it_goes_on(home: Path) -> None:
    study = home / "study"
    searched = with_arms(
        Study.load(study / "study.yaml"), {"name": "paper", "rates": (1e-3, 1e-2, 0.1)}
    )
    (study / "study.yaml").write_text(searched.to_yaml())
    shutil.rmtree(study / "cells")
    place = study / "rates" / "paper-code"
    shutil.copytree(home / "run", place / "0.001")
    shutil.copytree(home / "run", place / "0.01")
    unfinished(place / "0.01", 4)
    standing = Watcher(study).look()
    running = [each for each in standing.runs if each.state == "running"]
    assert [each.name for each in running] == ["paper-code, rate 0.01"]
    assert standing.shown is running[0]
    assert math.isnan(standing.seconds_left)
    unfinished(place / "0.001", 4)
    shown = run("watch", "study").stdout
    assert "2 running" in shown
    assert "not known yet" in shown
    # a rate at which training diverged never comes to its end; the search does
    (place / "rate.json").write_text("{}")
    assert {each.state for each in Watcher(study).look().runs} == {"waiting"}


def test_nothing_is_written_by_looking(home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    run("watch", "study")
    run("watch", "run")
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_what_is_no_run_is_named(home: Path) -> None:
    shown = run("watch", ".")
    assert shown.exit_code == 2
    assert "no run, passes or study lies there" in shown.stderr
    with pytest.raises(InputError):
        Watcher(home / "nowhere").look()


def test_names_are_shown_literally(capsys: pytest.CaptureFixture[str]) -> None:
    failed = RunState(HOSTILE, "failed", 1, 2, ((0, 1.0),), failure=HOSTILE)
    out().print(frame(Standing(HOSTILE, (failed, RunState(HOSTILE, "waiting")))))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[bold]x[/bold]\\x1b" in shown


def test_curves_have_bars_of_what_the_terminal_can_show() -> None:
    assert curve([1.0, 2.0, 3.0]) == "▁▅█"
    assert curve([1.0, 2.0, 3.0], "ascii") == "_+@"
    assert curve([2.0]) == "▁"
    assert len(curve([float(value) for value in range(1000)])) == 48


class Terminal(Console):
    """A terminal of no screen."""

    def __init__(self) -> None:
        super().__init__(force_terminal=True, width=90, file=io.StringIO())


def test_in_a_terminal_it_is_looked_at_until_it_ends_and_ctrl_c_leaves_it_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "out", Terminal)
    whole = (home / "run/run.json").read_text(), (home / "run/log.jsonl").read_text()
    unfinished(home / "run", 6)
    looked = 0

    def sleep(seconds: float) -> None:
        nonlocal looked
        looked += 1
        if looked == 2:
            (home / "run/run.json").write_text(whole[0])
            (home / "run/log.jsonl").write_text(whole[1])

    monkeypatch.setattr(command.time, "sleep", sleep)
    command.watch(home / "run", once=False, every=1.0)
    assert looked == 2

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", interrupted)
    unfinished(home / "run", 6)
    command.watch(home / "run", once=False, every=1.0)
