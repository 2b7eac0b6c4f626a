"""Snapshots, the step that is kept, and where a run ends: exact, bounded, the same when resumed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from headsurgeon.errors import OutputError, PatchError, SettingsError
from headsurgeon.evaluation import evaluate
from headsurgeon.operation import apply_patch, read_patch
from headsurgeon.operation.tensor_file import write_tensors
from headsurgeon.training import TrainSettings, read_log, train
from headsurgeon.training.log import read_entries
from headsurgeon.training.moments import step_of
from tests.pico import pico
from tests.test_train_loop import STEPS, cut, patient, run, same, short

KEPT = {"snapshots": (0, 2, 5, "epoch:1"), "statistics_windows": 0}
# an epoch of 10 windows at 4 a step ends within step 3
KEPT_STEPS = [0, 2, 5]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    run(patient(), folder, **KEPT)
    return folder


def snapshots(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    paths = sorted((folder / "snapshots").iterdir())
    return {path.name: read_patch(path)[1] for path in paths}


def same_snapshots(folder: Path, reference: Path) -> bool:
    left, right = snapshots(folder), snapshots(reference)
    assert list(left) == list(right)
    return all(
        torch.equal(left[file][name], right[file][name]) for file in right for name in right[file]
    )


# --- what a snapshot is --------------------------------------------------------------------------


def test_snapshots_are_patches_of_the_slices_at_their_steps(tmp_path: Path) -> None:
    subject = patient()
    seen = {0: {name: slice_.detach().clone() for name, slice_ in subject.named_slices().items()}}

    def note(event: Any) -> None:
        slices = subject.named_slices().items()
        seen[event.step] = {name: slice_.detach().clone() for name, slice_ in slices}

    result = run(subject, tmp_path / "run", note, **KEPT)
    assert [path.name for path in result.snapshots] == [
        f"step-{s:06d}.safetensors" for s in KEPT_STEPS
    ]
    assert result.snapshots == tuple(sorted((tmp_path / "run" / "snapshots").iterdir()))
    for step, path in zip(KEPT_STEPS, result.snapshots, strict=True):
        assert all(torch.equal(t, seen[step][name]) for name, t in read_patch(path)[1].items())
        applied = apply_patch(pico("bloom", hidden_dropout=0.1, attention_dropout=0.1), path)
        assert applied.step == step
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    assert content["result"]["snapshots"] == [
        f"snapshots/step-{s:06d}.safetensors" for s in KEPT_STEPS
    ]


def test_every_snapshot_has_an_evaluation_in_the_log_that_applying_it_reproduces(
    reference: Path,
) -> None:
    losses = {
        e["step"]: e["dev_loss"]
        for e in read_entries(reference / "log.jsonl")
        if e["kind"] == "evaluation"
    }
    assert set(KEPT_STEPS) <= set(losses)
    for step in KEPT_STEPS:
        model = pico("bloom", hidden_dropout=0.1, attention_dropout=0.1)
        apply_patch(model, reference / "snapshots" / f"step-{step:06d}.safetensors")
        assert evaluate(model, cut("dev")).nll == pytest.approx(losses[step], abs=1e-5)


def test_in_bf16_they_are_half_as_large_and_rounded(tmp_path: Path, reference: Path) -> None:
    run(patient(), tmp_path / "run", **KEPT, snapshot_dtype="bf16")
    for name, tensors in snapshots(tmp_path / "run").items():
        exact = snapshots(reference)[name]
        assert all(torch.equal(t, exact[key].bfloat16()) for key, t in tensors.items())


def test_keeping_snapshots_changes_nothing_that_is_learned(tmp_path: Path, reference: Path) -> None:
    run(patient(), tmp_path / "run", statistics_windows=0)
    ends = [read_patch(folder / "patch.safetensors")[1] for folder in (tmp_path / "run", reference)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])


# --- killed and resumed --------------------------------------------------------------------------


class PowerCut(Exception):
    pass


@contextmanager
def power_cut_at(write: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process ends just before that many files were put in their place."""
    left = write
    replace = Path.replace

    def cut_off(self: Path, target: Any) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise PowerCut
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", cut_off)
        yield


SHORT = {"snapshots": (0, 1), "statistics_windows": 0, "stop": 1, "keep": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(patient(), folder, **SHORT)
    return folder


# run.json, log, snapshot, kept, checkpoint, snapshot, checkpoint, patch, run.json
@pytest.mark.parametrize("write", [3, 4, 6, 8])
def test_killed_between_two_files_and_resumed_it_has_the_same_snapshots(
    write: int, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PowerCut), power_cut_at(write, monkeypatch):
        run(patient(), tmp_path / "run", **SHORT)
    assert not (tmp_path / "run" / "snapshots" / "step-000001.safetensors").exists() or write >= 6
    run(patient(), tmp_path / "run", **SHORT)
    assert same_snapshots(tmp_path / "run", whole)
    assert same(tmp_path / "run", whole)


def test_a_snapshot_from_beyond_the_checkpoint_is_written_anew(
    tmp_path: Path, reference: Path
) -> None:
    def kill(event: Any) -> None:
        if event.step == 3:
            raise PowerCut

    with pytest.raises(PowerCut):
        run(patient(), tmp_path / "run", kill, **KEPT)
    late = tmp_path / "run" / "snapshots" / "step-000005.safetensors"
    late.write_bytes(b"of a step that never was")
    run(patient(), tmp_path / "run", **KEPT)
    assert same_snapshots(tmp_path / "run", reference)


def test_a_snapshot_that_was_removed_is_missed(tmp_path: Path) -> None:
    run(patient(), tmp_path / "run", **KEPT)
    (tmp_path / "run" / "snapshots" / "step-000002.safetensors").unlink()
    with pytest.raises(OutputError, match=r"step-000002\.safetensors is not there"):
        run(patient(), tmp_path / "run", **KEPT)


def test_other_snapshots_are_another_run(reference: Path) -> None:
    with pytest.raises(OutputError, match=r"settings\.snapshots: the run there has \[0, 2, 5"):
        run(patient(), reference, **KEPT | {"snapshots": (0, 2)})


def test_a_run_from_before_these_settings_is_resumed(tmp_path: Path) -> None:
    run(patient(), tmp_path / "run", statistics_windows=0)
    path = tmp_path / "run" / "run.json"
    content = json.loads(path.read_text())
    for name in ("snapshots", "snapshot_dtype", "keep", "stop"):
        del content["identity"]["settings"][name]
    content["result"] = None
    path.write_text(json.dumps(content))
    result = run(patient(), tmp_path / "run", statistics_windows=0)
    assert json.loads(path.read_text())["result"]["kept_step"] == result.kept_step
    with pytest.raises(OutputError, match="keep: the run there has 'best', this one 'last'"):
        run(patient(), tmp_path / "run", statistics_windows=0, keep="last")


# --- refused before anything starts --------------------------------------------------------------


@pytest.mark.parametrize(
    ("moments", "says"),
    [
        ("0,x", "got 'x'"),
        ("epoch:one", "got 'epoch:one'"),
        ("-1", "got '-1'"),
        ((True,), "got 'True'"),
        ((1.5,), "got '1.5'"),
        (("epoch:1e3",), "got 'epoch:1e3'"),
        (7, "expected a list"),
    ],
)
def test_what_is_no_moment_is_named(moments: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=f"snapshots.*{says}"):
        TrainSettings(epochs=1, snapshots=moments)


def test_moments_are_sorted_and_each_is_there_once() -> None:
    wanted = (0, 5, 10, "epoch:0.5", "epoch:1")
    for given in ("10, 5,0,5,epoch:1.0,epoch:0.50", [10, "5", 0, "epoch:1", "epoch:0.5"]):
        assert TrainSettings(epochs=1, snapshots=given).snapshots == wanted


def test_an_epoch_ends_where_a_budget_of_one_epoch_does() -> None:
    assert step_of("epoch:1", 10, 4) == 2
    assert step_of("epoch:2", 10, 4) == 5
    assert step_of(7, 10, 4) == 7


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"snapshots": (0, STEPS + 1)},
            rf"snapshots: {STEPS + 1} is step {STEPS + 1}, but the run",
        ),
        ({"snapshots": ("epoch:9",)}, "snapshots: epoch:9 is step 22"),
        ({"keep": STEPS + 1}, "keep: step 8 lies beyond the end of the run, step 7"),
        ({"keep": 4, "stop": 3}, "keep: step 4 lies beyond the end of the run, step 3"),
        ({"stop": STEPS + 1}, "stop: step 8 lies beyond the budget"),
        ({"snapshots": tuple(range(300)), "max_tokens": 48 * 400}, "at most 256 and 32 GiB"),
    ],
)
def test_steps_that_never_come_and_too_many_are_refused_before_the_run(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=says):
        run(patient(), tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_snapshots_larger_than_the_bound_are_refused_by_their_size() -> None:
    from headsurgeon.training.snapshots import snapshots_of

    settings = TrainSettings(epochs=1, snapshots=tuple(range(100)))
    with pytest.raises(SettingsError, match=r"100 of 113,000,000 values in fp32 take 42\.1 GiB"):
        snapshots_of(Path("run"), settings, 10_000, 100, 113_000_000)
    halved = TrainSettings(epochs=1, snapshots=tuple(range(100)), snapshot_dtype="bf16")
    assert len(snapshots_of(Path("run"), halved, 10_000, 100, 113_000_000).steps) == 100


def test_a_pass_can_be_kept_and_stopped_at_as_a_step_can(tmp_path: Path) -> None:
    named = run(patient(), tmp_path / "steps", statistics_windows=0, keep=4, stop=5)
    # 10 windows a pass at 4 a step
    passes = run(
        patient(), tmp_path / "passes", statistics_windows=0, keep="epoch:1.6", stop="epoch:2"
    )
    assert (passes.steps, passes.kept_step) == (named.steps, named.kept_step) == (5, 4)


def test_keep_takes_best_last_or_a_step_and_nothing_else() -> None:
    kept = [TrainSettings(epochs=1, keep=keep).keep for keep in ("best", "last", 4, "40")]
    assert kept == ["best", "last", 4, 40]
    for wrong in ("first", -1, True, 1.5, "9" * 5000):
        with pytest.raises(SettingsError, match="keep: expected best, last, or a step"):
            TrainSettings(epochs=1, keep=wrong)


# --- the step that is kept -----------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "step"), [("last", STEPS), (4, 4), (0, 0)])
def test_patient_patch_and_result_hold_the_step_that_is_named(
    keep: Any, step: int, tmp_path: Path
) -> None:
    subject = patient()
    result = run(subject, tmp_path / "run", keep=keep, snapshots=(step,), statistics_windows=0)
    assert (result.kept_step, subject.step) == (step, step)
    assert result.kept_dev_loss == dict(read_log(result))[48 * step]
    metadata, tensors = read_patch(result.patch)
    assert metadata["step"] == str(step)
    wanted = read_patch(result.snapshots[0])[1]
    assert all(torch.equal(t, wanted[name]) for name, t in tensors.items())
    slices = subject.named_slices().items()
    assert all(torch.equal(slice_, wanted[name]) for name, slice_ in slices)
    content = json.loads((tmp_path / "run" / "run.json").read_text())["result"]
    assert content["kept_step"] == step
    kept = [path.name for path in (tmp_path / "run" / "checkpoint").glob("kept-*")]
    assert kept == [f"kept-{step:06d}.safetensors"]


def test_a_run_that_stops_early_is_the_longer_run_up_to_there(
    tmp_path: Path, reference: Path
) -> None:
    result = run(patient(), tmp_path / "run", stop=5, snapshots=(5,), statistics_windows=0)
    assert (result.steps, result.tokens) == (5, 5 * 48)
    wanted = read_patch(reference / "snapshots" / "step-000005.safetensors")[1]
    stopped = read_patch(result.snapshots[0])[1]
    assert all(torch.equal(stopped[name], tensor) for name, tensor in wanted.items())


def test_a_patch_whose_step_is_no_number_is_refused(tmp_path: Path, reference: Path) -> None:
    metadata, tensors = read_patch(reference / "snapshots" / "step-000002.safetensors")
    write_tensors(tmp_path / "p.safetensors", "patch", tensors, metadata | {"step": "two"})
    with pytest.raises(PatchError, match="step: expected a whole number"):
        read_patch(tmp_path / "p.safetensors")


# --- evaluations besides -------------------------------------------------------------------------


def test_evaluations_at_named_steps_come_besides_the_regular_ones(tmp_path: Path) -> None:
    settings = short(evaluate_at="0-2,5")
    train(patient(), cut("train"), cut("dev"), output=tmp_path / "run", settings=settings)
    lines = [e for e in read_entries(tmp_path / "run" / "log.jsonl") if e["kind"] == "evaluation"]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 5, 6, 7]


def test_an_evaluation_beyond_the_end_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(SettingsError, match="evaluate_at: 9 is step 9, but the run ends at step 7"):
        train(
            patient(),
            cut("train"),
            cut("dev"),
            output=tmp_path / "run",
            settings=short(evaluate_at=(9,)),
        )
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("moments", ["5-2", "0-100000"])
def test_ranges_rise_and_are_no_longer_than_anyone_means(moments: str) -> None:
    with pytest.raises(SettingsError, match="expected a range that rises"):
        TrainSettings(epochs=1, evaluate_at=moments)
