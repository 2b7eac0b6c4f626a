"""One run in two processes that talk by gloo: the same slices, one folder, one who writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headsurgeon.operation import open_full, operate
from headsurgeon.training.log import read_entries
from tests.pico import pico
from tests.test_train_loop import PLAN, STEPS, end_state, run

# each starts two interpreters
pytestmark = pytest.mark.slow
# no dropout: which windows share a random number is what differs
QUICK = {"statistics_windows": 1, "evaluate_every": 3}


def together(
    kind: str, folder: Path, stop_at: int = 0, count: int = 2, **changes: object
) -> list[str]:
    """What every process said at the end."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words += [f"--nproc-per-node={count}", "-m", "tests.run_in_processes", kind, str(folder)]
    words += [json.dumps({**QUICK, **changes}), str(stop_at)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = [folder.with_suffix(f".rank{rank}") for rank in range(count)]
    return [path.read_text(encoding="utf-8") for path in said]


def alone(kind: str, folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    model = pico("bloom")
    learner = operate(model, PLAN) if kind == "patient" else open_full(model, PLAN)
    run(learner, folder, **{**QUICK, **changes})
    return end_state(folder)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("patient", {}), ("patient", {"optimizer": "muon"}), ("full", {"masters": "fp32"})],
)
def test_two_processes_end_with_the_slices_of_one_that_has_twice_the_batch(
    kind: str, changes: dict[str, object], tmp_path: Path
) -> None:
    said = together(kind, tmp_path / "two", **changes)
    assert said[0] == said[1]
    assert said[0].startswith("finished")
    found = end_state(tmp_path / "two")
    wanted = alone(kind, tmp_path / "one", batch_size=4, accumulation=1, **changes)
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name.endswith("query_key_value.bias") and not name.startswith("step"):
            # softmax ignores keys' biases: their gradient is rounding alone, which AdamW magnifies
            for bias in (found[name], wanted[name]):
                bias.view(-1, 3, 8)[:, 1] = 0.0
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-4)
    entries = read_entries(tmp_path / "two" / "log.jsonl")
    steps = [entry["step"] for entry in entries if entry["kind"] == "step"]
    assert steps == list(range(1, STEPS + 1))


def test_two_processes_stop_together_and_resume_to_the_same_end(tmp_path: Path) -> None:
    stopped = together("patient", tmp_path / "parts", stop_at=4)
    assert stopped[0] == stopped[1]
    assert stopped[0].startswith("stopped: stopped by Ctrl-C at step 4 of 7")
    resumed = together("patient", tmp_path / "parts")
    whole = together("patient", tmp_path / "whole")
    assert resumed == whole
    left, right = end_state(tmp_path / "parts"), end_state(tmp_path / "whole")
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_a_refusal_reaches_every_process_in_words(tmp_path: Path) -> None:
    said = together("patient", tmp_path / "run", batch_size=3, accumulation=1)
    assert all("reads 3 windows" in words and "2 processes" in words for words in said)
    assert not (tmp_path / "run").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    said = together("patient", tmp_path / "other")
    assert said[0] == said[1]
    assert "something else" in said[0]
