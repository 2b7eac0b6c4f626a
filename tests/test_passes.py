"""Passes: each from what the last left, compared with the untouched, resumed after any kill."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.errors import Interrupted, NeedsConfirmation, OutputError, SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.operation import read_patch
from headsurgeon.passes import Pass, Passes, run_passes
from headsurgeon.passes.folder import open_sequence
from headsurgeon.passes.rules import rules_of
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.training import StepEvent
from headsurgeon.training.log import read_entries
from tests.clinic import sick_bloom, tokenizer, write_text

FIRST, SECOND = HeadId(1, 2), HeadId(1, 3)
SETTINGS = hs.TrainSettings(
    max_tokens=768,
    length=32,
    batch_size=4,
    learning_rate=1e-2,
    first_rate="zero",
    evaluate_every=3,
    checkpoint_every=2,
    dev_windows=6,
    statistics_windows=2,
)
# the first pass leaves one of the two sick heads to the second
RULES = ({"rule": "heads", "heads": ["L1H2"]}, "sick")


@dataclass
class Ward:
    """Texts for a sequence, and one that ran without interruption."""

    train: hs.Windows
    dev: hs.Windows
    test: hs.Windows
    folder: Path
    result: Passes = field(init=False)

    def run(self, folder: Path, model: PreTrainedModel | None = None, **over: Any) -> Passes:
        asked: dict[str, Any] = {
            "output": folder,
            "settings": SETTINGS,
            "passes": 3,
            "rules": RULES,
            "tested": self.test,
            "least_gain": None,
        }
        return run_passes(model or sick_bloom(), self.train, self.dev, **{**asked, **over})


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    folder = tmp_path_factory.mktemp("ward")
    write_text(folder / "docs")
    corpus = f"text:{folder}/docs/*.txt"
    train, dev = hs.training_windows(corpus, tokenizer(), SETTINGS)
    found = Ward(train, dev, hs.windows(corpus, tokenizer(), "test", 32, 4), folder / "run")
    found.result = found.run(found.folder)
    return found


def same_files(left: Path, right: Path) -> None:
    texts = ["diagnosis.json", "recovery.json", "drift.json", "plan.yaml"]
    names = ["passes.json", "diagnosis.json"]
    names += [f"pass-{number}/{name}" for number in (1, 2) for name in texts]
    for name in names:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name
    for name in ("patch.safetensors", "pass-1/patch.safetensors", "pass-2/patch.safetensors"):
        (said, slices), (theirs, others) = read_patch(left / name), read_patch(right / name)
        assert said == theirs
        assert all(torch.equal(others[part], tensor) for part, tensor in slices.items())


def test_each_pass_starts_from_what_the_last_kept_until_no_head_is_sick(ward: Ward) -> None:
    one, two = ward.result.passes
    assert ward.result.sick == (FIRST, SECOND)
    assert (one.operated, one.sick, one.got_well) == ((FIRST,), (SECOND,), (FIRST,))
    assert (two.operated, two.sick, two.got_well) == ((SECOND,), (), (SECOND,))
    assert ward.result.ended == "no head is sick after pass 2"
    assert two.dev_loss_before == pytest.approx(one.dev_loss, abs=1e-6)
    plans = [Plan.load(ward.folder / f"pass-{number}" / "plan.yaml") for number in (1, 2)]
    assert plans[0].fingerprint != plans[1].fingerprint


def test_every_pass_has_an_optimiser_and_a_warm_up_of_its_own(ward: Ward) -> None:
    rates = [
        [
            entry["learning_rate"]
            for entry in read_entries(ward.folder / f"pass-{number}" / "log.jsonl")
            if entry["kind"] == "step"
        ]
        for number in (1, 2)
    ]
    assert len(rates[0]) == 6
    assert rates[0] == rates[1]
    assert rates[0][0] < max(rates[0])


def test_the_composed_patch_gives_the_model_that_the_passes_left(ward: Ward) -> None:
    assert ward.result.patch == "patch.safetensors"
    one_by_one, at_once = sick_bloom(), sick_bloom()
    for number in (1, 2):
        hs.apply_patch(one_by_one, ward.folder / f"pass-{number}" / "patch.safetensors")
    hs.apply_patch(at_once, ward.folder / "patch.safetensors")
    theirs = at_once.state_dict()
    assert all(torch.equal(theirs[name], t) for name, t in one_by_one.state_dict().items())
    assert hs.diagnose(hs.measure(at_once, ward.dev)).sick == ()


def test_the_model_is_untouched_afterwards_and_the_same_call_does_nothing_more(
    ward: Ward, tmp_path: Path
) -> None:
    copy = shutil.copytree(ward.folder, tmp_path / "copy")
    model = sick_bloom()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = ward.run(copy, model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert json.loads((copy / "passes.json").read_text()) == json.loads(
        (ward.folder / "passes.json").read_text()
    )
    assert result.passes == Passes.load(ward.folder / "passes.json").passes


def test_recovery_is_by_function_and_untrained_heads_count_for_nothing(ward: Ward) -> None:
    for found in ward.result.passes:
        assert found.recovery is not None
        assert found.recovery.no_longer_sick == found.operated
        assert found.recovery.untrained_mass < 0.5
        assert found.test_change is not None
    untrained = SETTINGS.model_copy(update={"keep": 0, "max_tokens": 128})
    folder = ward.folder.parent / "untrained"
    (found,) = ward.run(folder, settings=untrained, passes=1, rules=["sick"]).passes
    assert found.recovery is not None
    assert found.recovery.no_longer_sick == (FIRST, SECOND)
    assert found.recovery.recovered == ()


class Killed(BaseException):
    """As a kill: nothing of ours catches it."""


@pytest.mark.parametrize("write", [0, 1, 2, 6, 11, 16, 21, 26])
def test_a_kill_at_any_write_is_resumed_with_the_same_numbers(
    write: int, ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    replace = Path.replace

    def counted(self: Path, target: Path) -> Path:
        nonlocal written
        written += 1
        if written > write:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", counted)
        with pytest.raises(Killed):
            ward.run(tmp_path / "run")
    ward.run(tmp_path / "run")
    same_files(ward.folder, tmp_path / "run")


class Watcher:
    """Notes what it is told; stops where it is asked to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.told: list[str] = []
        self.steps = 0
        self.stop_at = stop_at

    def measuring(self, what: str) -> None:
        self.told.append(what)

    def planned(self, number: int, plan: Plan, model: PreTrainedModel) -> None:
        self.told.append(f"planned {number}: {', '.join(map(str, plan.operated))}")
        if self.stop_at == -number:
            raise NeedsConfirmation("no")

    def stepped(self, event: StepEvent) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            raise KeyboardInterrupt

    def finished(self, found: Pass) -> None:
        self.told.append(f"finished {found.number}")


@pytest.mark.parametrize("stop_at", [4, 9])
def test_ctrl_c_within_a_pass_is_resumed_with_the_same_numbers(
    stop_at: int, ward: Ward, tmp_path: Path
) -> None:
    model = sick_bloom()
    with pytest.raises(Interrupted):
        ward.run(tmp_path / "run", model, observer=Watcher(stop_at))
    assert all(
        torch.equal(t, model.state_dict()[name]) for name, t in sick_bloom().state_dict().items()
    )
    watcher = Watcher()
    ward.run(tmp_path / "run", model, observer=watcher)
    assert watcher.steps == 12 - stop_at
    same_files(ward.folder, tmp_path / "run")


def test_who_refuses_a_plan_stops_before_anything_is_trained(ward: Ward, tmp_path: Path) -> None:
    watcher = Watcher(-1)
    with pytest.raises(NeedsConfirmation):
        ward.run(tmp_path / "run", observer=watcher)
    assert watcher.told == ["the untouched model", "planned 1: L1H2"]
    assert not (tmp_path / "run" / "pass-1").exists()


@pytest.mark.parametrize(
    ("over", "named"),
    [
        ({"settings": SETTINGS.model_copy(update={"learning_rate": 2e-2})}, "settings.learning_r"),
        ({"rules": ["sick"]}, "rules"),
        ({"least_gain": 0.1}, "least_gain"),
        ({"tested": None}, "tested"),
        ({"thresholds": hs.Thresholds(sink=0.4)}, "thresholds.sink"),
        ({"model": sick_bloom(seed=1)}, "weights"),
    ],
)
def test_a_folder_of_other_settings_is_refused_by_name(
    over: dict[str, Any], named: str, ward: Ward, tmp_path: Path
) -> None:
    copy = shutil.copytree(ward.folder, tmp_path / "copy")
    with pytest.raises(OutputError, match=named):
        ward.run(copy, **over)
    same_files(ward.folder, copy)


def test_a_folder_in_which_another_works_or_with_something_else_is_refused(
    ward: Ward, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match="something else"):
        ward.run(tmp_path)
    with pytest.raises(OutputError, match="more than the 1 asked for"):
        open_sequence(ward.folder, "sick", ward.result.identity, passes=1)


def test_a_sequence_whose_rule_had_a_hyphen_is_the_same(tmp_path: Path) -> None:
    begun = open_sequence(tmp_path, "model", {"rules": ["sick", "newly-sick"]}, passes=2)
    now = {"rules": ("sick", "newly_sick")}
    assert open_sequence(tmp_path, "model", now, passes=2) == begun
    with pytest.raises(OutputError, match="rules: the run there has"):
        open_sequence(tmp_path, "model", {"rules": ("sick",)}, passes=2)


def test_more_passes_go_on_in_the_same_folder(ward: Ward, tmp_path: Path) -> None:
    rules = (RULES[0], "newly_sick", "sick")
    found = ward.run(tmp_path / "run", passes=3, rules=rules)
    assert [each.operated for each in found.passes] == [(FIRST,)]
    assert found.ended.startswith("pass 2 finds no head for newly_sick")
    one = ward.run(tmp_path / "more", passes=2)
    assert len(one.passes) == 2
    assert one.ended == "2 passes were asked for; no head is sick after the last"
    again = ward.run(tmp_path / "more", passes=3)
    assert again.passes == one.passes
    assert again.ended == "no head is sick after pass 2"


def test_the_sequence_ends_where_the_loss_no_longer_falls(ward: Ward, tmp_path: Path) -> None:
    found = ward.run(tmp_path / "run", least_gain=10.0)
    assert [each.number for each in found.passes] == [1]
    last = found.passes[0]
    assert found.ended == (
        "in pass 1 the loss on dev text did not fall by more than 10: "
        f"{last.dev_loss_before:.4f} before it, {last.dev_loss:.4f} after"
    )
    assert found.patch == "patch.safetensors"


def test_who_became_sick_is_told_against_the_untouched_model_and_is_the_next_pass(
    ward: Ward, tmp_path: Path
) -> None:
    begin = {"rule": "heads", "heads": ["L1H2"]}
    tried = tmp_path / "tried"
    ward.run(tried, passes=1, rules=[begin], tested=None)
    before = hs.Diagnosis.load(tried / "diagnosis.json").stats.first_token_mass
    after = hs.Diagnosis.load(tried / "pass-1" / "diagnosis.json").stats.first_token_mass
    change = after - before
    change[FIRST] = -1.0
    # what counts as sick lies between the two masses of the head that gained most
    head = HeadId(*map(int, np.unravel_index(change.argmax(), change.shape)))
    limit = float(before[head] + after[head]) / 2
    limits = hs.Thresholds(sink=limit, dead=max(limit, 0.95))
    fell = {
        HeadId(int(layer), int(index))
        for layer, index in np.argwhere((before <= limit) & (after > limit))
    }
    found = ward.run(
        tmp_path / "run", passes=2, rules=[begin, "newly_sick"], tested=None, thresholds=limits
    )
    first, second = found.passes
    told = {each.head: each for each in first.became_sick}
    assert set(told) == fell
    assert head in fell
    assert (told[head].before, told[head].after) == (before[head], after[head])
    assert told[head].zone == "outside"
    assert first.zones["outside"].became_sick == len(fell)
    assert set(second.operated) == fell
    # whatever pass operated on them
    assert second.zones["operated"].heads == 1 + len(fell)
    assert all(each.before <= limit < each.after for each in second.became_sick)


def test_given_plans_are_carried_out_whatever_became_of_the_heads(
    ward: Ward, tmp_path: Path
) -> None:
    plans = [
        Plan(model="", heads=(PlannedHead(id=FIRST), PlannedHead(id=SECOND))),
        Plan(model="", heads=(PlannedHead(id=HeadId(0, 1)), PlannedHead(id=FIRST))),
    ]
    found = ward.run(tmp_path / "run", passes=2, rules=plans, least_gain=10.0, tested=None)
    assert [each.operated for each in found.passes] == [plan.operated for plan in plans]
    assert found.passes[1].recovery is found.passes[1].test_loss is None
    # the second began at a lower layer, so that fewer heads cannot change
    assert [each.zones["outside"].heads for each in found.passes] == [10, 9]
    assert [each.zones["outside"].can_change for each in found.passes] == [4, 6]


def test_a_model_without_a_sick_head_is_left_alone(ward: Ward, tmp_path: Path) -> None:
    found = ward.run(tmp_path / "run", rules=["sick"], thresholds=hs.Thresholds(sink=1.0, dead=1.0))
    assert (found.passes, found.patch) == ((), None)
    assert found.ended == "no head of the untouched model is sick"


def test_a_plan_goes_on_by_its_own_rule_and_what_it_was_told() -> None:
    told = Plan(model="", rule="band", band=(2, 3), layers=(1, 2), seed=4, heads=())
    first, second = rules_of([told], 2)
    assert first is told
    assert isinstance(second, dict)
    assert second["rule"] == "band"
    assert (second["band"], second["layers"], second["seed"]) == ((2, 3), (1, 2), 4)


@pytest.mark.parametrize(
    ("rules", "passes", "message"),
    [
        ([], 2, "expected a rule or a plan"),
        (["sick", "sick"], 1, "got 2"),
        (["sicc"], 1, "no rule 'sicc'"),
        ([{"rule": "heads", "heads": ["L0H0"]}], 2, "the same heads again"),
        ([Plan(model="", heads=(PlannedHead(id=FIRST),))], 2, "the same heads again"),
        ([{"rule": "sick", "layer": 3}], 1, "no layer; known are"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(
    rules: list[Any], passes: int, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        rules_of(rules, passes)


def test_a_sequence_holds_its_folder(ward: Ward, tmp_path: Path) -> None:
    seen = []

    class Looking(Watcher):
        def measuring(self, what: str) -> None:
            seen.append((tmp_path / "run" / ".headsurgeon.lock").exists())

    ward.run(tmp_path / "run", passes=1, rules=RULES[:1], observer=Looking())
    assert seen
    assert all(seen)
