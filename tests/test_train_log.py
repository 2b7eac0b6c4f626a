"""What a run logs at each evaluation: every head, drift from the untouched model, probe texts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headsurgeon.errors import OutputError, SettingsError
from headsurgeon.evaluation import drift, evaluate
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.operation import apply_patch, open_full, open_lora, operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import TrainSettings, train
from headsurgeon.training.dev_evaluation import DevEvaluation
from headsurgeon.training.log import read_entries
from headsurgeon.training.untouched import untouched
from tests.pico import pico, tokens
from tests.test_train_loop import cut, entries, patient, short

PROBES = {"far": replace(cut("dev"), tokens=cut("dev").tokens + 50), "near": cut("test")}
WATCHING = Plan(
    model="pico",
    rule="heads",
    heads=(
        PlannedHead(id=HeadId(1, 1)),
        PlannedHead(id=HeadId(1, 2), role="watch"),
        PlannedHead(id=HeadId(2, 0), role="watch"),
    ),
)


def logged(folder: Path, **changes: Any) -> Any:
    subject = operate(pico("bloom"), WATCHING)
    return train(
        subject,
        cut("train"),
        cut("dev"),
        output=folder,
        settings=short(**{"snapshots": (3,), **changes}),
        probes=PROBES,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return logged(tmp_path_factory.mktemp("finished") / "run")


def table(entry: dict[str, Any], name: str) -> Any:
    return np.array(entry["heads"][name])


def test_the_first_line_says_what_the_untouched_model_does(finished: Any) -> None:
    start = read_entries(finished.log)[0]
    assert (start["kind"], start["version"], start["against"]) == ("start", 3, "untouched")
    stock = pico("bloom")
    assert start["dev_loss"] == pytest.approx(evaluate(stock, cut("dev")).nll, abs=1e-6)
    for name, windows in PROBES.items():
        assert start["probes"][name] == pytest.approx(evaluate(stock, windows).nll, abs=1e-6)
    stats = measure(stock, cut("dev").take(2))
    assert table(start, "first_token_mass") == pytest.approx(stats.first_token_mass, abs=2e-5)
    assert table(start, "entropy") == pytest.approx(stats.entropy, abs=2e-4)
    assert table(start, "mean_distance") == pytest.approx(stats.mean_distance, abs=2e-3)


def test_an_evaluation_logs_what_measuring_its_snapshot_finds(finished: Any) -> None:
    entry = next(
        e for e in read_entries(finished.log) if e["kind"] == "evaluation" and e["step"] == 3
    )
    model = pico("bloom")
    before = measure(model, cut("dev").take(2))
    apply_patch(model, finished.snapshots[0])
    after = measure(model, cut("dev").take(2))
    assert table(entry, "first_token_mass") == pytest.approx(after.first_token_mass, abs=2e-5)
    for name, windows in PROBES.items():
        assert entry["probes"][name] == pytest.approx(evaluate(model, windows).nll, abs=1e-5)
    found = drift(before, after, WATCHING)
    zones = entry["drift"]
    assert [zones[zone]["heads"] for zone in ("operated", "watched", "outside")] == [1, 2, 9]
    for zone in ("watched", "outside"):
        assert {k: zones[zone][k] for k in ("heads", "could_drift", "drifted")} == found.zones[zone]
    moved = abs(found.mass_change[1, 1])
    assert zones["operated"]["largest"] == pytest.approx(moved, abs=2e-5)
    assert zones["watched"]["largest"] == pytest.approx(abs(found.mass_change[2, 0]), abs=2e-5)
    # L1H2 reads what it read and is what it was
    assert zones["watched"]["could_drift"] == 1


def test_every_document_has_its_loss(finished: Any) -> None:
    lines = [e for e in read_entries(finished.log) if e["kind"] != "step"]
    tokens = lines[0]["document_tokens"]
    stock = pico("bloom")
    for text, windows in (("dev", cut("dev")), *((f"probe:{n}", w) for n, w in PROBES.items())):
        known = evaluate(stock, windows)
        assert tokens[text] == known.document_tokens.tolist()
        assert lines[0]["document_losses"][text] == pytest.approx(known.document_mean, abs=2e-6)
    for line in lines:
        of_dev = np.average(line["document_losses"]["dev"], weights=tokens["dev"])
        assert of_dev == pytest.approx(line["dev_loss"], abs=2e-6)


def test_a_log_of_version_2_is_read_and_says_nothing_of_documents(
    finished: Any, tmp_path: Path
) -> None:
    lines = []
    for entry in read_entries(finished.log):
        old = {k: v for k, v in entry.items() if not k.startswith("document_")}
        old |= {"version": 2} if entry["kind"] == "start" else {}
        lines.append(json.dumps(old) + "\n")
    (tmp_path / "log.jsonl").write_text("".join(lines))
    assert len(read_entries(tmp_path / "log.jsonl")) == len(lines)


def test_probes_and_statistics_decide_nothing_that_is_learned(
    finished: Any, tmp_path: Path
) -> None:
    subject = operate(pico("bloom"), WATCHING)
    settings = short(statistics_windows=0, snapshots=(3,))
    other = train(subject, cut("train"), cut("dev"), output=tmp_path / "run", settings=settings)
    assert other.best_dev_loss == finished.best_dev_loss
    lines = [e for e in read_entries(other.log) if e["kind"] != "step"]
    assert all(entry["heads"] is None for entry in lines)
    assert all(entry["drift"] is None for entry in lines[1:])


def test_a_killed_and_resumed_run_has_the_same_log(finished: Any, tmp_path: Path) -> None:
    class PowerCut(Exception):
        pass

    def kill(event: Any) -> None:
        if event.step == 5:
            raise PowerCut

    settings = short(snapshots=(3,))
    for on_step in (kill, None):
        subject = operate(pico("bloom"), WATCHING)
        try:
            train(
                subject,
                cut("train"),
                cut("dev"),
                output=tmp_path / "run",
                settings=settings,
                probes=PROBES,
                on_step=on_step,
            )
        except PowerCut:
            assert on_step is kill
    assert entries(tmp_path / "run") == entries(finished.folder)


def test_other_probes_are_another_run(finished: Any) -> None:
    with pytest.raises(OutputError, match=r"probes\.far\."):
        train(
            operate(pico("bloom"), WATCHING),
            cut("train"),
            cut("dev"),
            output=finished.folder,
            settings=short(snapshots=(3,)),
            probes={"near": PROBES["near"]},
        )


@pytest.mark.parametrize("probes", [{"a b": cut("dev")}, {f"p{i}": cut("dev") for i in range(33)}])
def test_probes_of_odd_names_or_too_many_are_refused(probes: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="at most 32 probes with names of letters"):
        train(
            patient(),
            cut("train"),
            cut("dev"),
            output=tmp_path / "run",
            settings=short(),
            probes=probes,
        )


def test_a_hundred_evaluations_of_384_heads_take_less_than_2_mb() -> None:
    model = pico("bloom", heads=16, layers=24)
    subject = operate(model, WATCHING)
    dev = replace(cut("dev"), tokens=tokens(10, 12))
    settings = TrainSettings(epochs=1, length=12, statistics_windows=1)
    found = DevEvaluation(subject, dev, settings, PROBES).evaluate()
    line = json.dumps(
        {
            "heads": found.heads,
            "drift": found.drift,
            "probes": found.probes,
            "document_losses": found.document_losses,
        },
        allow_nan=False,
    )
    assert 100 * len(line) < 2e6


def test_untouched_is_the_stock_model_and_leaves_every_slice_as_it_was() -> None:
    stock = pico("bloom")
    subject = operate(pico("bloom"), WATCHING)
    slices = {name: slice_.detach().clone() for name, slice_ in subject.named_slices().items()}
    ids = tokens()
    with torch.no_grad():
        operated = subject.model(ids).logits
        with untouched(subject):
            assert torch.equal(subject.model(ids).logits, stock(ids).logits)
        assert torch.equal(subject.model(ids).logits, operated)
    assert all(torch.equal(s, slices[name]) for name, s in subject.named_slices().items())


# --- reading back --------------------------------------------------------------------------------


def test_a_log_of_version_1_is_read(finished: Any, tmp_path: Path) -> None:
    lines = []
    for entry in read_entries(finished.log)[1:]:
        newer = ("heads", "drift", "probes", "terms", "document_losses")
        old = {k: v for k, v in entry.items() if k not in newer}
        lines.append(json.dumps(old) + "\n")
    (tmp_path / "log.jsonl").write_text("".join(lines))
    assert len(read_entries(tmp_path / "log.jsonl")) == len(lines)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 4}, "line 1: version: newer than 3, which this headsurgeon reads"),
        ({"against": "step 0"}, "line 1: start.against"),
        ({"heads": {"entropy": [["x"]]}}, "line 1: start.heads"),
        ({"mood": 1}, "line 1: start.mood"),
    ],
)
def test_a_first_line_that_no_run_writes_is_refused(
    change: dict[str, Any], says: str, finished: Any, tmp_path: Path
) -> None:
    first, *rest = finished.log.read_text().splitlines(keepends=True)
    changed = json.dumps(json.loads(first) | change) + "\n"
    (tmp_path / "log.jsonl").write_text(changed + "".join(rest))
    with pytest.raises(OutputError, match=says):
        read_entries(tmp_path / "log.jsonl")


def test_a_start_that_does_not_come_first_is_refused(finished: Any, tmp_path: Path) -> None:
    first, second, *rest = finished.log.read_text().splitlines(keepends=True)
    (tmp_path / "log.jsonl").write_text(second + first + "".join(rest))
    with pytest.raises(OutputError, match="line 2: start"):
        read_entries(tmp_path / "log.jsonl")


# --- other learners ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_other_learners_are_compared_with_the_untouched_model_too(
    kind: str, tmp_path: Path
) -> None:
    if kind == "lora":
        pytest.importorskip("peft")
    learner = {"full": open_full, "lora": open_lora}[kind](pico("bloom"), WATCHING)
    with torch.no_grad():
        for value in learner.trainable().values():
            value.add_(0.05)
        operated = learner.model(tokens()).logits
        with untouched(learner):
            assert torch.equal(learner.model(tokens()).logits, pico("bloom")(tokens()).logits)
        assert torch.equal(learner.model(tokens()).logits, operated)
    run = train(learner, cut("train"), cut("dev"), output=tmp_path / "run", settings=short())
    start, first = (e for e in read_entries(run.log)[:2])
    assert start["dev_loss"] == pytest.approx(evaluate(pico("bloom"), cut("dev")).nll, abs=1e-6)
    # no head is out of reach of what is trained
    assert first["drift"]["outside"]["could_drift"] == 9
    assert first["drift"]["outside"]["largest"] > 0.0
