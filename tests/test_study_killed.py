"""Claims about studies that are killed: run again, they come to what an undisturbed one does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headsurgeon.study import Cell, Study, load_results, run_study
from headsurgeon.study.results import PREPARED, cell_file, diagnosis_file, folder_of
from tests.studies import numbers, pico_study, with_arms

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="looks for workers in /proc"
)
PAPER, KEPT = Cell("paper", "code", 0), Cell("gradient_only", "code", 0)
# long enough to be met at work
TRAIN = {"max_tokens": 128 * 60, "batch_size": 4, "evaluate_every": 4, "checkpoint_every": 5}
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "preparing": lambda folder: diagnosis_file(folder, "code").exists(),
    "prepared": lambda folder: (folder / PREPARED).exists(),
    "training": lambda folder: _lines(folder_of(folder, PAPER) / "log.jsonl") > 20,
    "between cells": lambda folder: cell_file(folder, PAPER).exists(),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    whole = pico_study(tmp_path_factory.mktemp("models"))
    return with_arms(whole, "paper", "gradient_only", "untrained", train={**whole.train, **TRAIN})


@pytest.fixture(scope="module")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "undisturbed"
    run_study(study, folder)
    return folder


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start(study: Study, folder: Path, *options: str) -> "subprocess.Popen[str]":
    """The command, in a process of its own."""
    file = folder.parent / "study.yaml"
    file.write_text(study.to_yaml())
    return subprocess.Popen(
        [
            *(sys.executable, "-c", "from headsurgeon.cli.main import main; main()"),
            *("study", str(file), "--output", str(folder), *options),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(moment: str, folder: Path, running: "subprocess.Popen[str]") -> None:
    """Returns as soon as the moment has come."""
    ends = time.monotonic() + 600
    while not MOMENTS[moment](folder):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < ends
        time.sleep(0.002)


def workers(parent: int) -> list[int]:
    """Processes that compute cells for `parent`."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_study_that_is_killed_and_run_again_comes_to_the_same(
    study: Study, undisturbed: Path, tmp_path: Path, moment: str, jobs: str
) -> None:
    folder = tmp_path / "study"
    running = start(study, folder, "--jobs", jobs)
    wait_for(moment, folder, running)
    running.kill()
    running.communicate()
    again = start(study, folder, "--jobs", jobs)
    assert again.wait() == 0, again.communicate()
    again.communicate()
    assert not load_results(folder).missing
    assert numbers(folder) == numbers(undisturbed)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told_in_words_and_the_rest_goes_on(
    study: Study, undisturbed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    running = start(study, folder, "--jobs", "2")
    wait_for("training", folder, running)
    os.kill(workers(running.pid)[0], signal.SIGKILL)
    _, said = running.communicate()
    assert running.returncode == 1
    assert "was killed" in said
    assert "same command" in said
    assert "Traceback" not in said
    run_study(study, folder, jobs=2)
    assert numbers(folder) == numbers(undisturbed)


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
    ids=["scheduler", "scheduler of a group", "terminal"],
)
def test_a_study_that_is_asked_to_end_saves_its_cells_and_ends(
    study: Study, tmp_path: Path, number: signal.Signals, group: bool
) -> None:
    # so long that a worker which goes on, or takes the next cell, is met at work
    train = {"max_tokens": 128 * 5000, "evaluate_every": 5000, "checkpoint_every": 5000}
    long = study.model_copy(update={"train": {**study.train, **train}})
    folder = tmp_path / "study"
    running = start(long, folder, "--jobs", "2")
    wait_for("training", folder, running)
    at_work = workers(running.pid)
    assert len(at_work) == 2
    (os.killpg if group else os.kill)(running.pid, number)
    _, said = running.communicate()
    assert running.returncode == 128 + number
    assert ("interrupted" if number == signal.SIGINT else "stopped by SIGTERM") in said
    assert "Traceback" not in said
    assert not [pid for pid in at_work if Path(f"/proc/{pid}").exists()]
    assert {PAPER, KEPT} <= set(load_results(folder).missing)
    # in the middle of the step that was under way nothing would have been saved
    assert (folder_of(folder, PAPER) / "checkpoint" / "last.safetensors").exists()
