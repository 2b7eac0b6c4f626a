"""`make gpu-check` runs to its end on a processor too; without a GPU it says so and ends."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    subject = importlib.import_module("subject")
    # layers of a small width: what is tried is the check, not the machine
    monkeypatch.setattr(subject, "HIDDEN", 64)
    return importlib.import_module("gpu_check")


def test_without_a_gpu_it_refuses_in_words(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    with pytest.raises(SystemExit, match="nothing was checked"):
        gpu_check.main()


def test_every_part_is_good_on_a_processor(gpu_check: ModuleType) -> None:
    device = torch.device("cpu")
    found = gpu_check.check(gpu_check.Setting(device, layers=2, length=64, rounds=1))
    assert [str(each) for each in found if each.good is False] == []
    said = gpu_check.block(device, found)
    assert "has not run this on a GPU yet" in said
    for part in ("fast against maps", "resumed", "memory", "bf16 against fp32", "stock forward"):
        assert part in said


def test_a_part_that_fails_is_reported_and_the_others_go_on(
    gpu_check: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(setting: object) -> None:
        raise RuntimeError("no such kernel")

    for name in ("kernels", "operation_and_resume", "half_precision", "speed"):
        monkeypatch.setattr(gpu_check, name, fail)
    setting = gpu_check.Setting(torch.device("cpu"), layers=1, length=16, rounds=1)
    found = gpu_check.check(setting)
    assert [each.good for each in found] == [False, False, None, False, False]
    assert "BAD kernels: failed: RuntimeError: no such kernel" in gpu_check.block(
        torch.device("cpu"), found
    )
