"""Claims about study files: what they say, and that every fault of one is told with its line."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from headsurgeon.errors import StudyError
from headsurgeon.study import PRESETS, READY, Arm, Study
from headsurgeon.study.keys import key_of
from headsurgeon.study.quick import BUDGET, WINDOWS, quick
from headsurgeon.study.results import Cell, Prepared, cells_of, load_results
from headsurgeon.study.variants import variants_of

SHORT = """\
kind: study
name: short
model: some/model
texts:
- {name: code, corpus: "text:a*.txt"}
- {name: prose, corpus: "text:b*.txt"}
train_on: [code]
train: {max_tokens: 1000}
arms:
- paper
- {name: gradient_only, train: {learning_rate: 1.0e-3}}
- {name: mine, like: muon, rates: [1.0e-3, 2.0e-3, 4.0e-3]}
seeds: [0, 1]
contrasts:
- {name: mechanism, question: mechanism, arm: paper, against: gradient_only}
"""


def changed(old: str, new: str) -> str:
    assert SHORT.count(old) == 1
    return SHORT.replace(old, new)


def test_a_study_that_is_written_and_read_is_the_same() -> None:
    study = Study.from_yaml(SHORT)
    assert Study.from_yaml(study.to_yaml()) == study


# those of the paper name text that is not there; tests/test_study_presets.py is about them
WHOLE = sorted(name for name in PRESETS if not variants_of(name))


@pytest.mark.parametrize("name", WHOLE)
def test_every_preset_is_a_study_of_its_own_name(name: str) -> None:
    assert Study.load(name).name == name


@pytest.mark.parametrize("name", sorted(READY))
def test_every_ready_arm_is_one(name: str) -> None:
    fields = {"column": 1} if READY[name].get("heads") == "column" else {}
    assert Arm(name=name, **READY[name], **fields).about


def test_an_arm_takes_over_what_it_does_not_change() -> None:
    study = Study.from_yaml(SHORT)
    kept, mine = study.arm("gradient_only"), study.arm("mine")
    assert (kept.init, kept.train) == ("none", {"learning_rate": 1e-3})
    assert mine.train == {"optimizer": "muon"}
    assert study.settings(mine, 3, 2e-3).optimizer == "muon"


def test_the_untouched_model_is_always_among_the_cells_and_once() -> None:
    cells = [str(cell) for cell in cells_of(Study.from_yaml(SHORT))]
    assert cells[0] == "untouched"
    trained = [f"{a}-code-{s}" for a in ("paper", "gradient_only", "mine") for s in (0, 1)]
    assert cells[1:] == trained


def test_an_arm_may_be_run_with_fewer_seeds_and_its_cells_are_what_they_were() -> None:
    whole = Study.from_yaml(SHORT)
    prepared = Prepared(
        model="m", twin=None, windows={}, plan="p", versions={}, device="cpu", planted=False
    )
    some = Study.from_yaml(changed("- paper", "- {name: paper, seeds: 1}"))
    left = [cell for cell in cells_of(whole) if cell != Cell("paper", "code", 1)]
    assert list(cells_of(some)) == left
    assert [key_of(some, prepared, cell) for cell in left] == [
        key_of(whole, prepared, cell) for cell in left
    ]
    assert quick(Study.from_yaml(changed("- paper", "- {name: paper, seeds: 2}"))).seeds == (0,)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("name: short", "name: short\nsize: 3", 3, "unknown key 'size'"),
        ("- paper", "- papier", 10, "no ready arm 'papier'"),
        ("like: muon", "like: moon", 12, "no ready arm 'moon'"),
        ("{learning_rate: 1.0e-3}", "{learning_rate: fast}", 11, "learning_rate"),
        ("{learning_rate: 1.0e-3}", "{seed: 3}", 11, "seed is for the study"),
        ("[1.0e-3, 2.0e-3, 4.0e-3]", "[1.0e-3, 2.0e-3]", 12, "at least three"),
        ("[1.0e-3, 2.0e-3, 4.0e-3]", "[1.0e-3, 4.0e-3, 2.0e-3]", 12, "rising"),
        ("against: gradient_only", "against: nobody", 15, "no arm nobody"),
        ("against: gradient_only", "against: paper", 15, "compares paper with itself"),
        ("train_on: [code]", "train_on: [cod]", 7, "no text cod"),
        ("seeds: [0, 1]", "seeds: [0, 0]", 13, "0 is there for the second time"),
        ("seeds: [0, 1]", "seeds: [0, true]", 13, "whole number"),
        ("name: prose", "name: pro-se", 6, "name"),
        ("- paper", "- ceiling", 10, "needs a twin"),
        ("- paper", "- anchor", 10, "names the text"),
        ("- paper", "- {name: paper, anchor: prose}", 10, "or neither"),
        ("- paper", "- {name: paper, seeds: 3}", 10, "seeds is 3, and the study has 2"),
        ("- paper", "- {name: paper, seeds: 0}", 10, "greater than or equal to 1"),
        ("- paper", "- paper\n- {name: ablate_mean, seeds: 1}", 11, "no seed changes anything"),
        ("kind: study", "kind: plan", 1, "plan"),
    ],
)
def test_a_fault_is_told_with_its_line(old: str, new: str, line: int, words: str) -> None:
    with pytest.raises(StudyError) as caught:
        Study.from_yaml(changed(old, new), "s.yaml")
    assert words in str(caught.value)
    assert f"line {line}" in str(caught.value)


def test_all_faults_come_at_once() -> None:
    text = changed("- paper", "- papier").replace("name: prose", "name: pro-se")
    with pytest.raises(StudyError, match=r"(?s)2 faults.*line 6.*line 10"):
        Study.from_yaml(text)


def test_a_study_that_is_neither_file_nor_preset_names_the_presets() -> None:
    with pytest.raises(StudyError, match=r"presets are .*twins-quick"):
        Study.load("twins-quikc")


def test_a_study_cannot_be_changed() -> None:
    study = Study.from_yaml(SHORT)
    with pytest.raises(ValidationError):
        study.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", WHOLE)
def test_a_quick_look_has_the_same_arms_and_heads_and_less_of_all_else(name: str) -> None:
    whole = Study.load(name)
    short = quick(whole)
    assert short.name == f"{name}-quick"
    assert [arm.name for arm in short.arms] == [arm.name for arm in whole.arms]
    assert (short.windows.diagnose, short.windows.price) == (
        whole.windows.diagnose,
        whole.windows.price,
    )
    assert short.train["max_tokens"] == whole.train["max_tokens"] // BUDGET
    assert short.windows.test == whole.windows.test // WINDOWS
    assert short.seeds == whole.seeds[:1]
    assert not any(arm.rates for arm in short.arms)
    for arm in whole.arms:
        if arm.rates:
            rate = short.settings(short.arm(arm.name)).learning_rate
            assert rate == arm.rates[len(arm.rates) // 2]
    assert Study.from_yaml(short.to_yaml()) == short


def test_what_a_start_reads_is_not_more_than_the_budget() -> None:
    text = changed("- paper\n", "- {name: paper, like: induction, calibration: 5}\n")
    with pytest.raises(StudyError, match=r"arm paper: max_tokens: the start reads 1280 tokens"):
        Study.from_yaml(text)


def test_an_arm_is_keyed_as_it_was_before_its_rule_lost_the_hyphen() -> None:
    from headsurgeon.study.keys import _as_keyed

    arms = [Arm(name="again", passes=2, next_rule=rule) for rule in ("newly_sick", "newly-sick")]  # type: ignore[arg-type]
    assert arms[0] == arms[1]
    assert _as_keyed(arms[0])["next_rule"] == "newly-sick"
    assert _as_keyed(Arm(name="once"))["next_rule"] == "sick"


def test_a_folder_without_a_study_is_named_and_no_preset_is_offered(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study lies there") as caught:
        load_results(tmp_path / "NOTHERE")
    assert "presets" not in str(caught.value)
