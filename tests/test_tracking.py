"""What a run logs reaches a sink, each step once, also of runs resumed, ended, or in cells."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from headsurgeon import extras
from headsurgeon.cli.study_terminal import StudyTerminal
from headsurgeon.errors import MissingPackage
from headsurgeon.report import tracking
from headsurgeon.report.tracking import Relay, TensorBoard, head_picture, send_log
from headsurgeon.study.engines import Task
from headsurgeon.study.results import Cell
from tests.clinic import checkpoint, run, sick_bloom, write_text
from tests.study_files import finished_study
from tests.test_train_log import logged


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.scalars: dict[str, dict[int, float]] = {}
        self.images: dict[int, np.ndarray] = {}
        self.closed = False

    def scalar(self, name: str, value: float, step: int) -> None:
        assert step not in self.scalars.setdefault(name, {}), (name, step)
        self.scalars[name][step] = value

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        assert name == "heads/first_token_mass"
        self.images[step] = picture

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracking") / "run"
    logged(folder, evaluate_every=2)
    return folder


def test_every_number_and_map_of_a_log_is_sent(finished: Path) -> None:
    sink = Kept()
    send_log(finished, sink)
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    steps = {line["step"]: line for line in lines if line["kind"] == "step"}
    evaluations = {line["step"]: line for line in lines if line["kind"] == "evaluation"}
    assert sink.scalars["train/loss"] == {step: line["loss"] for step, line in steps.items()}
    assert sink.scalars["dev/loss"] == {s: line["dev_loss"] for s, line in evaluations.items()}
    assert sink.scalars["untouched/loss"] == {0: lines[0]["dev_loss"]}
    assert set(sink.scalars["drift/outside_mean"]) == set(sink.images) == set(evaluations)
    assert sink.closed


def test_a_growing_log_is_sent_line_by_line_and_none_twice(finished: Path, tmp_path: Path) -> None:
    content = (finished / "log.jsonl").read_bytes()
    sink = Kept()
    relay = Relay(tmp_path, sink)
    relay.send()
    for end in (10, 700, 700, len(content) // 2, len(content) - 3, len(content)):
        (tmp_path / "log.jsonl").write_bytes(content[:end])
        relay.send()
    whole = Kept()
    send_log(finished, whole)
    assert sink.scalars == whole.scalars


def test_the_picture_has_a_square_of_its_colour_for_each_head() -> None:
    picture = head_picture(np.array([[0.0, 1.0, np.nan], [0.5, 0.5, 0.5]]))
    assert picture.shape == (32, 48, 3)
    assert picture[0, 0].tolist() == [0xFC, 0xFD, 0xBF]
    assert picture[15, 31].tolist() == [0, 0, 4]
    assert picture[0, 47].tolist() == [0xD9, 0xDC, 0xE3]


def test_a_missing_package_is_named_with_its_command_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extras, "installed", lambda package: False)
    with pytest.raises(MissingPackage, match=r'pip install "headsurgeon\[tensorboard\]"'):
        TensorBoard(tmp_path)
    words = ("operate", "no-model", "--plan", "p", "--corpus", "text:x", "--output", tmp_path / "o")
    for shown in (
        run(*words, "--tensorboard"),
        run("study", "twins-quick", "--output", tmp_path / "s", "--tensorboard"),
    ):
        assert shown.exit_code == 2
        assert "pip install" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_event_files_hold_it_and_those_of_an_earlier_session_go(
    finished: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboardX")
    for _ in range(2):
        send_log(finished, TensorBoard(tmp_path / "tensorboard"))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"dev/loss" in content
    assert b"heads/first_token_mass" in content
    assert b"\x89PNG" in content


@pytest.fixture
def sinks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Kept]:
    """The sinks of a command by their folder, in place of event files."""
    made: dict[str, Kept] = {}

    def sink(folder: Path) -> Kept:
        made[folder.name] = Kept(folder)
        return made[folder.name]

    monkeypatch.setattr(tracking, "TensorBoard", sink)
    monkeypatch.setattr(extras, "installed", lambda package: True)
    return made


def test_operate_sends_its_run_as_it_goes_and_again_when_it_has_ended(
    sinks: dict[str, Kept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "pico", sick_bloom())
    write_text(tmp_path / "docs")
    corpus = ("--corpus", "text:docs/*.txt", "--length", "32")
    assert run("diagnose", "pico", *corpus, "--count", "8", "--output", "d").exit_code == 0
    assert run("plan", "d/diagnosis.json", "--rule", "sick", "-o", "plan.yaml").exit_code == 0
    for passes in ((), ("--passes", "1")):
        words = ("operate", "pico", "--plan", "plan.yaml", *corpus, "--max-tokens", "512", "--yes")
        output = f"run{len(passes)}"
        shown = run(*words, *passes, "--output", output, "--tensorboard")
        assert shown.exit_code == 0, shown.output
        sink = sinks["pass-1" if passes else "tensorboard"]
        assert sink.closed
        assert sink.scalars["train/loss"]
        assert sink.images
    shown = run(*words, "--output", "run0", "--tensorboard")
    assert shown.exit_code == 0, shown.output
    assert sinks["tensorboard"].scalars["train/loss"]


def test_a_study_sends_a_run_for_each_trained_cell(
    sinks: dict[str, Kept], finished: Path, tmp_path: Path
) -> None:
    folder = finished_study(tmp_path)
    # a cell that was trained before
    shutil.copytree(finished, folder / "cells/paper-code-0")
    terminal = StudyTerminal(folder, tensorboard=True)
    terminal.planned(0, 2)
    terminal.finished(Task(Cell("untrained", "", 0)))
    terminal.close()
    assert list(sinks) == ["paper-code-0"]
    assert sinks["paper-code-0"].folder == folder / "tensorboard/paper-code-0"
