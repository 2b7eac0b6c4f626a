"""Run folders: damaged ones are refused in words, other models are no resumption."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headsurgeon.errors import (
    InputError,
    Interrupted,
    OperationError,
    OutputError,
    SettingsError,
    StateError,
)
from headsurgeon.operation import operate
from headsurgeon.operation.tensor_file import read_tensors, write_tensors
from headsurgeon.training import train_settings
from headsurgeon.training.run_file import RUN_NAME
from tests.pico import pico
from tests.test_train_loop import PLAN, STEPS, patient, run

QUICK = {"statistics_windows": 0, "max_tokens": 3 * 48, "evaluate_every": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(patient(), folder, **QUICK)
    return folder


def again(finished: Path, folder: Path, change: Callable[[Path], Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder)
    change(folder)
    run(patient(), folder, **QUICK)


def tampered(name: str, value: Any) -> Callable[[Path], None]:
    """A checkpoint with one tensor, or its progress, replaced and the hash made to fit."""

    def change(folder: Path) -> None:
        path = folder / "checkpoint" / "last.safetensors"
        tensors, metadata = read_tensors(path, "checkpoint", OutputError)
        progress = metadata["progress"]
        if name == "progress":
            progress = value if isinstance(value, str) else json.dumps(json.loads(progress) | value)
        else:
            key = next(key for key in sorted(tensors) if key.startswith(name))
            tensors[key] = value(tensors[key])
        write_tensors(path, "checkpoint", tensors, {"progress": progress})

    return change


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("progress", {"step": 10**9}),
        ("progress", {"step": -1}),
        ("progress", {"step": "three"}),
        ("progress", {"best_loss": None}),
        ("progress", {"best_step": 3, "evaluated": 2}),
        ("progress", "[" * 100_000),
        ("progress", "9" * 10_000),
        ("progress", '{"step": NaN}'),
        ("slice/", lambda tensor: tensor * torch.nan),
        ("slice/", lambda tensor: tensor[:1].clone()),
        ("exp_avg/", lambda tensor: tensor.to(torch.int64)),
        ("exp_avg_sq/", lambda tensor: tensor - 1.0),
        ("step/", lambda tensor: tensor + 1.0),
    ],
)
def test_a_checkpoint_whose_content_cannot_be_is_refused(
    name: str, value: Any, finished: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"last\.safetensors"):
        again(finished, tmp_path / "run", tampered(name, value))


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'{"kind": "step"}',
        b'{"kind": "epoch", "step": 1}',
        b'{"kind": "step", "step": ' + b"9" * 5000 + b"}",
        b"[" * 50_000,
        b"\xff\xfe",
        b"",
    ],
)
def test_a_line_of_the_log_that_no_run_writes_is_refused_by_its_number(
    line: bytes, finished: Path, tmp_path: Path
) -> None:
    def change(folder: Path) -> None:
        lines = (folder / "log.jsonl").read_bytes().split(b"\n")
        (folder / "log.jsonl").write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]))

    with pytest.raises(OutputError, match=r"log\.jsonl, line 3"):
        again(finished, tmp_path / "run", change)


def test_a_log_that_is_gone_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="removed or cut"):
        again(finished, tmp_path / "run", lambda folder: (folder / "log.jsonl").unlink())


FILES = ["run.json", "log.jsonl", "checkpoint/last.safetensors"]
PIECES = st.sampled_from(
    [b"", b"null", b"-1", b"9" * 5000, b"1e999", b"NaN", b'"x"', b"{}", b"[", b"\xff", b"\n", b"0"]
)


@settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(FILES), st.floats(0, 1), st.integers(0, 12), PIECES)
def test_a_mutated_run_folder_goes_on_or_is_refused_in_words(
    finished: Path, tmp_path: Path, name: str, place: float, length: int, piece: bytes
) -> None:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        start = int(place * len(content))
        (folder / name).write_bytes(content[:start] + piece + content[start + length :])

    with suppress(InputError):
        again(finished, tmp_path / "run", change)


def changed_mlp() -> Any:
    model = pico("bloom", hidden_dropout=0.1, attention_dropout=0.1)
    with torch.no_grad():
        model.transformer.h[0].mlp.dense_h_to_4h.weight[0, 0] += 1e-3
    return model


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (changed_mlp, r"weights: other values of transformer\.h\.0\.mlp\.dense_h_to_4h\.weight$"),
        (
            lambda: pico("bloom", hidden_dropout=0.2, attention_dropout=0.1),
            "config.hidden_dropout: the run there has '0.1', this one '0.2'",
        ),
    ],
)
def test_another_model_is_no_resumption_and_is_told_apart_by_name(
    make: Callable[[], Any], says: str, finished: Path
) -> None:
    with pytest.raises(OutputError, match=says):
        run(operate(make(), PLAN), finished, **QUICK)


def test_another_version_is_written_down_and_warned_about(finished: Path, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        content = json.loads((folder / RUN_NAME).read_text())
        content["environment"][0]["torch"] = "1.0"
        (folder / RUN_NAME).write_text(json.dumps(content))

    with pytest.warns(UserWarning, match=r"torch 1\.0 →"):
        again(finished, tmp_path / "run", change)
    versions = json.loads((tmp_path / "run" / RUN_NAME).read_text())["environment"]
    assert [entry["torch"] for entry in versions] == ["1.0", torch.__version__]


def test_a_run_whose_start_is_spelled_with_a_hyphen_as_before_is_the_same_run(
    finished: Path, tmp_path: Path
) -> None:
    def change(folder: Path) -> None:
        content = json.loads((folder / RUN_NAME).read_text())
        assert content["identity"]["output_start"] == "zero_output"
        content["identity"]["output_start"] = "zero-output"
        (folder / RUN_NAME).write_text(json.dumps(content))

    again(finished, tmp_path / "run", change)


HOLDER = """\
import sys
from pathlib import Path

from headsurgeon.folders import locked

with locked(Path(sys.argv[1]), sys.argv[2]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_which_another_process_trains_is_refused(tmp_path: Path) -> None:
    # a process of its own, since Python 3.12 warns of a fork where there are threads
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "run"), RUN_NAME]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        try:
            assert holder.stdout.readline() == b"locked\n"
            with pytest.raises(OutputError, match=str(holder.pid)):
                run(patient(), tmp_path / "run", **QUICK)
        finally:
            holder.stdin.close()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_schedulers_send_stops_like_ctrl_c(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)

    def stop(event: Any) -> None:
        if event.step == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=f"stopped by {name} at step 1 of 3"):
        run(patient(), tmp_path / "run", stop, **QUICK)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("state", [torch.no_grad, torch.inference_mode])
def test_gradients_switched_off_by_the_caller_do_not_stop_training(
    state: Callable[[], Any], finished: Path, tmp_path: Path
) -> None:
    subject = patient()
    with state():
        result = run(subject, tmp_path / "run", **QUICK)
        assert torch.is_grad_enabled() is False
    assert (
        result.best_dev_loss
        == json.loads((finished / RUN_NAME).read_text())["result"]["best_dev_loss"]
    )


def test_frozen_slices_are_refused_in_words(tmp_path: Path) -> None:
    subject = patient()
    subject.slices()[0].requires_grad_(False)
    with pytest.raises(StateError, match="requires_grad is False"):
        run(subject, tmp_path / "run", **QUICK)
    with torch.inference_mode():
        subject = patient()
    with pytest.raises(StateError, match="inference_mode"):
        run(subject, tmp_path / "run", **QUICK)


def test_slices_that_are_not_finite_never_reach_a_checkpoint(tmp_path: Path) -> None:
    subject = patient()

    def poison(event: Any) -> None:
        if event.step == 2:
            with torch.no_grad():
                subject.slices()[0][0, 0] = torch.inf

    with pytest.raises(OperationError, match="not finite"):
        run(subject, tmp_path / "run", poison, **QUICK | {"evaluate_every": STEPS})
    path = tmp_path / "run" / "checkpoint" / "last.safetensors"
    tensors, _ = read_tensors(path, "checkpoint", OutputError)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 10**20),
        ("accumulation", 0),
        ("max_tokens", 10**30),
        ("seed", 2**64),
        pytest.param("seed", 10**6000, id="thousands of digits"),
        ("warmup", -1),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("epochs", 1e300),
        ("length", 10**12),
    ],
)
def test_settings_out_of_bounds_are_named(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"{name}: "):
        train_settings(**{"max_tokens": 1000, name: value})


def test_slices_loaded_from_a_narrow_checkpoint_say_that_they_are_rounded() -> None:
    trained = operate(pico("bloom").to(torch.bfloat16), PLAN)
    with torch.no_grad():
        trained.slices()[0].add_(0.1)
    fresh = operate(pico("bloom").to(torch.bfloat16), PLAN)
    with pytest.warns(UserWarning, match="rounded"):
        fresh.model.load_state_dict(trained.model.state_dict())


def test_a_patch_that_was_changed_after_the_run_is_not_written_over(
    finished: Path, tmp_path: Path
) -> None:
    patch = tmp_path / "run" / "patch.safetensors"
    with pytest.raises(OutputError, match="is not the one that this run wrote"):
        again(finished, tmp_path / "run", lambda folder: patch.write_bytes(b"mine"))
    assert patch.read_bytes() == b"mine"
    again(finished, tmp_path / "run", lambda folder: patch.unlink())
    written, _ = read_tensors(patch, "patch", OutputError)
    expected, _ = read_tensors(finished / "patch.safetensors", "patch", OutputError)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)
    kept = patch.stat().st_mtime_ns
    run(patient(), tmp_path / "run", **QUICK)
    assert patch.stat().st_mtime_ns == kept
