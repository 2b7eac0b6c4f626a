"""`operate --passes`: what it prints, asks and refuses; heads that became sick along the way."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import headsurgeon as hs
from headsurgeon.cli.passes_summary import show_pass, show_passes
from headsurgeon.evaluation import drift
from headsurgeon.heads import HeadId
from headsurgeon.passes import Pass, Passes, became_sick, zone_changes
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.report.folder_page import page_of
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text
from tests.head_stats import stats_of

TRAINING = ("--max-tokens", "512", "--length", "32", "--batch-size", "4", "--dev-windows", "6")
PASSES = ("--corpus", CORPUS, *TRAINING, "--passes")


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("sick"), sick_bloom())
    write_text(Path("docs"))
    return tmp_path


def spoken(text: str) -> str:
    return " ".join(text.split())


def test_passes_say_what_came_of_every_head_and_leave_one_patch(clinic: Path) -> None:
    asked = ("operate", "sick", *PASSES, "3", "--output", "run", "--yes", "--least-gain", "-9")
    said = run(*asked)
    assert said.exit_code == 0, said.stderr
    text = spoken(said.stdout)
    assert "pass 1: 2 heads operated on" in text
    assert "became sick no head that was healthy in the untouched model" in text
    assert "2 are no longer sick, as untrained ones would be" in text
    assert "ended no head is sick after pass 1" in text
    assert "run/patch.safetensors" in text
    found = Passes.load("run/passes.json")
    assert [each.operated for each in found.passes] == [found.sick]
    again = run(*asked)
    assert again.exit_code == 0, again.stderr
    assert spoken(again.stdout) == text
    evaluated = run(
        "evaluate",
        "sick",
        "--patch",
        "run/patch.safetensors",
        "--corpus",
        CORPUS,
        "--length",
        "32",
        "--count",
        "4",
    )
    assert evaluated.exit_code == 0, evaluated.stderr


def test_a_plan_begins_and_its_rule_goes_on(clinic: Path) -> None:
    heads = (PlannedHead(id=HeadId(1, 2)),)
    Plan(model="sick", rule="sick", joint_cost=0.0, heads=heads).save("plan.yaml")
    said = run(
        "operate",
        "sick",
        "--plan",
        "plan.yaml",
        *PASSES,
        "2",
        "--output",
        "run",
        "--yes",
        "--least-gain",
        "-9",
        "--no-recovery",
    )
    assert said.exit_code == 0, said.stderr
    found = Passes.load("run/passes.json")
    assert [each.operated for each in found.passes] == [(HeadId(1, 2),), (HeadId(1, 3),)]
    assert [each.rule for each in found.passes] == ["the plan given (rule sick)", "sick"]
    assert "not measured (--no-recovery)" in said.stdout


def test_heads_that_do_work_are_cut_only_after_a_yes(
    clinic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headsurgeon.cli.operation_cost.CONFIRM_ABOVE", -1e9)
    said = run("operate", "sick", *PASSES, "2", "--output", "run")
    assert said.exit_code == 2
    assert "proceed with --yes" in spoken(said.stderr)
    assert "--rule idle" in spoken(said.stderr)
    assert json.loads(Path("run/passes.json").read_text())["passes"] == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ((), "expected one --plan, got 0"),
        (("--plan", "a.yaml", "--plan", "b.yaml"), "expected one --plan, got 2"),
        (("--rule", "sick"), "give --passes"),
        (("--passes", "2", "--dry-run"), "leave out --passes"),
        (("--passes", "2", "--rule", "sicc"), "no rule 'sicc'"),
        (("--passes", "1", "--rule", "sick", "--rule", "sick"), "got 2"),
        (("--passes", "2", "--rule", "heads"), "the same heads again"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_model_is_loaded(
    asked: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("operate", "nowhere", "--corpus", CORPUS, "--output", "run", *asked)
    assert said.exit_code == 2
    assert message in spoken(said.stderr)
    assert not Path("run").exists()


# --- who became sick -----------------------------------------------------------------------------

UNTOUCHED = [[0.1, 0.2], [0.9, 0.2], [0.1, 0.4], [0.3, 0.8]]
NOW = [[0.1, 0.2], [0.1, 0.2], [0.6, 0.4], [0.7, 0.8]]


def diagnosed(masses: list[list[float]]) -> hs.Diagnosis:
    return hs.diagnose(stats_of(np.array([masses, masses])))


def compared() -> tuple[hs.Diagnosis, hs.Diagnosis, hs.Drift]:
    untouched, now = diagnosed(UNTOUCHED), diagnosed(NOW)
    heads = [PlannedHead(id=HeadId(1, 0)), PlannedHead(id=HeadId(3, 0), role="watch")]
    plan = Plan(model="", heads=tuple(heads))
    return untouched, now, drift(untouched.stats, now.stats, plan)


def test_who_became_sick_is_told_against_the_untouched_model_with_zone_and_mass() -> None:
    first, second = became_sick(*compared())
    assert (first.head, first.zone, first.before, first.after) == (
        HeadId(2, 0),
        "outside",
        pytest.approx(0.1),
        pytest.approx(0.6),
    )
    assert (second.head, second.zone) == (HeadId(3, 0), "watched")
    assert second.after - second.before == pytest.approx(0.4)


def test_zones_are_counted_with_and_without_the_heads_that_cannot_change() -> None:
    zones = zone_changes(*compared())
    assert (zones["operated"].heads, zones["operated"].became_healthy) == (1, 1)
    assert (zones["watched"].heads, zones["watched"].became_sick) == (1, 1)
    outside = zones["outside"]
    # layer 0 and the other head of layer 1 lie at or below what was operated on
    assert (outside.heads, outside.can_change) == (6, 3)
    assert (outside.became_sick, outside.still_sick, outside.drifted) == (1, 1, 1)


def test_the_next_pass_can_be_of_the_newly_sick_alone() -> None:
    untouched, now, _ = compared()
    plan = hs.plan(now, "newly_sick", untouched=untouched)
    assert plan.operated == (HeadId(2, 0), HeadId(3, 0))
    # as files and commands of before spell it
    assert hs.plan(now, "newly-sick", untouched=untouched) == plan
    assert hs.plan(now, "newly_sick", untouched=untouched, layers=(3, 3)).operated == (
        HeadId(3, 0),
    )
    assert hs.plan(now, "sick").operated == (HeadId(2, 0), HeadId(3, 0), HeadId(3, 1))
    with pytest.raises(hs.HeadsurgeonError, match="needs untouched"):
        hs.plan(now, "newly_sick")
    with pytest.raises(hs.HeadsurgeonError, match="no head has become sick"):
        hs.plan(now, "newly_sick", untouched=now)
    with pytest.raises(hs.HeadsurgeonError, match="compares with the untouched"):
        hs.plan(now, "newly_sick", untouched=diagnosed([[0.1, 0.2]]))


def test_the_newly_sick_are_shown_with_their_masses(capsys: pytest.CaptureFixture[str]) -> None:
    untouched, now, moved = compared()
    found = Pass(
        number=1,
        folder="pass-1",
        rule="sick",
        operated=(HeadId(1, 0),),
        watched=(HeadId(3, 0),),
        steps=8,
        tokens=64,
        kept_step=4,
        dev_loss_before=3.0,
        dev_loss=2.5,
        sick=now.sick,
        borderline=(),
        became_sick=became_sick(untouched, now, moved),
        zones=zone_changes(untouched, now, moved),
        fell_sick=(HeadId(2, 0), HeadId(3, 0)),
        got_well=(HeadId(1, 0),),
        recovery=None,
        test_loss=None,
        test_change=None,
    )
    result = Passes(model="m", identity={}, sick=untouched.sick, passes=(found,), ended="enough")
    show_pass(found, result)
    show_passes(result, Path("run"))
    text = spoken(capsys.readouterr().out)
    assert "3 of 8 heads, 2 in the untouched model: L2H0, L3H0, L3H1" in text
    assert "L2H0 0.100 → 0.600 (outside), L3H0 0.300 → 0.700 (watched)" in text
    assert "6 heads (3 of them cannot change): 1 healthy → sick" in text
    assert "2 healthy → sick, 1 sick → healthy" in text
    assert "ended enough" in text


@pytest.mark.parametrize(
    "asked",
    [
        ("--passes", "1"),
        ("--passes", "2", "--rule", "sick", "--rule", "newly_sick", "--least-gain=-9"),
        ("--passes", "2", "--plan", "plan.yaml", "--no-recovery", "--least-gain=-9"),
    ],
    ids=["usual", "rules", "plan"],
)
def test_the_command_of_a_page_makes_the_same_passes(asked: tuple[str, ...], clinic: Path) -> None:
    write_text(Path("more"), 400)
    Plan(model="sick", rule="sick", heads=(PlannedHead(id=HeadId(1, 2)),)).save("plan.yaml")
    training = ("--max-tokens", "128", "--length", "16", "--batch-size", "4", "--dev-windows", "6")
    corpus = CORPUS.replace("docs", "more")
    wanted = ("operate", "sick", "--corpus", corpus, *training, *asked, "--yes", "--output", "run")
    done = run(*wanted)
    assert done.exit_code == 0, done.output
    command = page_of([clinic / "run"]).command
    again = run(
        *shlex.split(command.replace("DIR", "again").replace(" pass-", " run/pass-"))[1:], "--yes"
    )
    assert again.exit_code == 0, again.output
    first, second = (Passes.load(f"{name}/passes.json") for name in ("run", "again"))
    assert first.identity == second.identity
    assert [each.operated for each in first.passes] == [each.operated for each in second.passes]
    # a pass by itself began with the model that the passes before had left
    assert page_of([clinic / "run" / "pass-1"]).command == ""


def test_passes_over_other_text_than_a_command_chooses_have_no_command(clinic: Path) -> None:
    model, tokenizer = hs.load("sick")
    settings = hs.TrainSettings(max_tokens=128, length=16, batch_size=4, dev_windows=6)
    texts = hs.training_windows(CORPUS, tokenizer, settings)
    hs.run_passes(model, *texts, output="run", settings=settings, passes=1, rules=("sick",))
    assert page_of([clinic / "run"]).command == ""
