"""What a run's folder says of it without a model: heads and losses over time."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headsurgeon as hs
from headsurgeon.errors import InputError, OutputError
from headsurgeon.evaluation import drift, evaluate
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.operation import apply_patch, open_full
from headsurgeon.training import train
from headsurgeon.training.recorded import redistribution_if_measured
from headsurgeon.training.run_file import runs_beside
from tests.pico import pico
from tests.test_train_log import WATCHING, logged
from tests.test_train_loop import cut, short


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return logged(tmp_path_factory.mktemp("recorded") / "first", evaluate_every=1)


def test_heads_over_time_are_those_of_the_snapshots(run: Any) -> None:
    found = hs.redistribution(run.folder)
    assert (found.run, found.model, found.steps[:3]) == ("first", "unnamed", (0, 1, 2))
    assert (found.operated, found.watched) == (WATCHING.operated, WATCHING.watched)
    assert found.epochs[1] == pytest.approx(1 / (len(cut("train")) / 4))
    model = pico("bloom")
    before = measure(model, cut("dev").take(2))
    apply_patch(model, run.snapshots[0])
    after = measure(model, cut("dev").take(2))
    place = found.place(3)
    known = after.first_token_mass - before.first_token_mass
    assert found.change[place] == pytest.approx(known, abs=3e-5)
    there = drift(before, after, WATCHING)
    for zone in ("watched", "outside"):
        ours = found.zones[zone][place]
        assert ours.heads == there.zones[zone]["heads"]
        assert ours.could_change == there.zones[zone]["could_drift"]
        assert ours.drifted == there.zones[zone]["drifted"]
    # layer 0, and L1 but for the head that was operated on
    assert int(found.fixed.sum()) == 7
    assert found.shapes["L0H0"] == "cannot change"


def test_where_all_was_trained_no_head_is_fixed(tmp_path: Path) -> None:
    learner = open_full(pico("bloom"), WATCHING)
    train(learner, cut("train"), cut("dev"), output=tmp_path / "full", settings=short())
    found = hs.redistribution(tmp_path / "full")
    assert not found.fixed.any()
    assert found.operated == (HeadId(1, 1),)


def test_two_runs_on_one_text_can_be_paired_and_others_not(run: Any, tmp_path: Path) -> None:
    same = logged(tmp_path / "same", seed=7)
    other = logged(tmp_path / "other", statistics_windows=1)
    texts = [hs.redistribution(each.folder).measured_on for each in (run, same, other)]
    assert texts[0] == texts[1] != texts[2]


def test_losses_over_time_are_those_of_the_log(run: Any) -> None:
    found = hs.sweep(run.folder)
    assert found.minimum.step == run.best_step
    assert found.minimum.loss == run.best_dev_loss
    assert found.steps_per_epoch == len(cut("train")) / 4
    stock = evaluate(pico("bloom"), cut("dev"))
    assert found.dev.untouched == pytest.approx(stock.nll, abs=1e-6)
    assert found.dev.documents is not None
    assert found.dev.documents.untouched == pytest.approx(stock.document_mean, abs=2e-6)
    assert {probe.name: probe.split for probe in found.probes} == {"far": "dev", "near": "test"}
    assert [each.name for each in found.reported] == ["near"]


def test_the_log_of_an_earlier_version_has_a_minimum_without_interval(
    run: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("document_losses", "document_tokens"):
            line.pop(name, None)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = hs.sweep(folder)
    assert found.minimum.step == run.best_step
    assert np.isnan(found.minimum.low)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    assert np.isnan(hs.sweep(folder).dev.untouched)
    with pytest.raises(InputError, match="its log is of version 1"):
        hs.redistribution(folder)


def test_what_is_no_run_or_says_nothing_of_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run lies there"):
        hs.redistribution(tmp_path)
    without = logged(tmp_path / "run", statistics_windows=0)
    with pytest.raises(InputError, match="statistics_windows was 0"):
        hs.redistribution(without.folder)
    assert hs.sweep(without.folder).minimum.step == without.best_step
    assert redistribution_if_measured(without.folder) is None
    assert redistribution_if_measured(tmp_path) is None
    (without.folder / "log.jsonl").write_text("no JSON\n")
    with pytest.raises(OutputError, match="line 1"):
        redistribution_if_measured(without.folder)


def test_a_finished_run_is_loaded_from_its_folder_and_from_its_own_file(
    run: hs.Run, tmp_path: Path
) -> None:
    assert hs.Run.load(run.folder) == run
    run.save(tmp_path / "run-result.json")
    assert hs.Run.load(tmp_path / "run-result.json") == run
    assert (run.log, run.patch) == (run.folder / "log.jsonl", run.folder / "patch.safetensors")
    assert [path.is_file() for path in (run.patch, *run.snapshots)] == [True, True]
    # a copy is another place
    copy = Path(shutil.copytree(run.folder, tmp_path / "copy"))
    moved = hs.Run.load(str(copy))
    assert (moved.folder, moved.patch) == (copy, copy / "patch.safetensors")
    assert moved.snapshots[0].parent == copy / "snapshots"
    assert moved.figures() == run.figures()


def test_a_run_of_before_it_named_its_file_or_kept_another_step_is_loaded(
    run: hs.Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    content = json.loads((folder / "run.json").read_text())
    for name in ("patch", "kept_step", "kept_dev_loss", "snapshots", "anchor_tokens"):
        del content["result"][name]
    (folder / "run.json").write_text(json.dumps(content))
    early = hs.Run.load(folder)
    assert early.patch == folder / "patch.safetensors"
    assert (early.kept_step, early.kept_dev_loss) == (run.best_step, run.best_dev_loss)
    assert (early.snapshots, early.anchor_tokens) == ((), 0)
    content["identity"]["trains"] = "full"
    (folder / "run.json").write_text(json.dumps(content))
    assert hs.Run.load(folder).patch == folder / "weights.safetensors"


def test_a_run_without_an_end_and_one_with_an_altered_one_are_refused(
    run: hs.Run, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    content = json.loads((folder / "run.json").read_text())
    result = content["result"]
    for end, says in (
        (None, "has not finished"),
        (result | {"steps": -1}, "steps: .*altered"),
        (result | {"snapshots": 3}, "snapshots: .*altered"),
        (result | {"best_dev_loss": "low"}, "best_dev_loss: .*altered"),
    ):
        (folder / "run.json").write_text(json.dumps(content | {"result": end}))
        with pytest.raises(InputError, match=says):
            hs.Run.load(folder)


def test_a_run_that_was_altered_is_refused_with_the_place(run: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "run")
    content = json.loads((folder / "run.json").read_text())
    content["identity"]["settings"]["batch_size"] = "many"
    (folder / "run.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"identity\.settings\.batch_size"):
        hs.sweep(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train", None),
        ("train", {"corpus": "code", "windows": "many"}),
        ("train", {"windows": 3}),
        ("dev", []),
        ("settings", None),
    ],
)
def test_a_run_whose_identity_cannot_be_read_is_refused_by_pages_and_cards(
    run: Any, tmp_path: Path, name: str, content: object
) -> None:
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    altered = json.loads((folder / "run.json").read_text())
    altered["identity"][name] = content
    (folder / "run.json").write_text(json.dumps(altered))
    with pytest.raises(InputError, match=r"identity.*altered"):
        hs.write_report(folder, output=tmp_path / "report.html")
    with pytest.raises(InputError, match=r"identity.*altered"):
        runs_beside([folder / "patch.safetensors"])
