"""Commands that are printed, on pages or in cards read the same text with the same tokenizer."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headsurgeon.diagnosis import Diagnosis
from headsurgeon.heads import HeadId
from headsurgeon.operation.model_card import Told
from headsurgeon.operation.publishing import uploads_of
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.report.folder_page import page_of
from headsurgeon.report.run_page import command_of
from headsurgeon.training.run_file import read_run_file, runs_beside
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text

# everything that a command would otherwise take from somewhere else
READING = ("--length", "48", "--first-token", "none", "--packing", "separated")
# without the first token that they sink on, heads look at others too
OTHERS = (
    ("--count", "8", "--sink", "0.09"),
    ("--max-tokens", "960", "--dev-windows", "4"),
    ("--count", "8"),
)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint without a tokenizer beside one that has it."""
    folder = tmp_path_factory.mktemp("clinic")
    checkpoint(folder / "whole", sick_bloom())
    shutil.copytree(folder / "whole", folder / "bare", ignore=shutil.ignore_patterns("token*"))
    write_text(folder / "docs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


def following(said: str, command: str) -> list[str]:
    """The words of the next step that a command has printed."""
    found = re.search(rf"^next: headsurgeon ({command} .*)$", said, flags=re.MULTILINE)
    assert found is not None, said
    return shlex.split(found[1])


def test_each_next_step_can_be_typed_as_it_stands(clinic: Path) -> None:
    loading = ("--tokenizer", "whole", "--trust-remote-code")
    diagnosed = run(
        "diagnose", "bare", "--corpus", CORPUS, *loading, *READING, *OTHERS[0], "--output", "out"
    )
    assert diagnosed.exit_code == 0, diagnosed.output
    planned = run(*following(diagnosed.stdout, "plan"), "--cost-count", "2")
    assert planned.exit_code == 0, planned.output
    operated = run(*following(planned.stdout, "operate"), *OTHERS[1], "--yes")
    assert operated.exit_code == 0, operated.output
    made = read_run_file(Path("runs/first"))
    assert made.identity["train"]["first_token"] == "none"
    assert made.identity["settings"]["length"] == 48
    assert made.identity["settings"]["packing"] == "separated"

    evaluate = following(operated.stdout, "evaluate")
    assert all(shlex.join(words) in shlex.join(evaluate) for words in (loading, READING))
    evaluated = run(*evaluate, *OTHERS[2])
    assert evaluated.exit_code == 0, evaluated.output
    merged = run(*following(operated.stdout, "merge"))
    assert merged.exit_code == 0, merged.output

    named = "--tokenizer whole --trust-remote-code"
    assert f"headsurgeon operate bare {named} --output DIR --plan plan.yaml " in command_of(made)
    card = Path("repaired/README.md").read_text()
    assert f"headsurgeon operate bare {named} --plan plan.yaml --output run " in card
    assert f"headsurgeon merge bare --patch run/patch.safetensors {named} " in card
    assert "from_pretrained(PATH, trust_remote_code=True)" in card


def test_a_card_knows_the_tokenizer_of_the_merge_and_no_folder_of_this_machine(
    clinic: Path,
) -> None:
    """Also where no run lies beside the patch, and where everything was named from the root."""
    Plan(model="bare", rule="heads", heads=(PlannedHead(id=HeadId(1, 2)),)).save("one.yaml")
    whole, corpus = str(clinic / "whole"), f"text:{clinic}/docs/*.txt"
    trained = run(
        *("operate", "bare", "--tokenizer", whole, "--plan", "one.yaml", "--corpus", corpus),
        *("--probe", f"own={corpus}", "--length", "48", *OTHERS[1], "--yes", "--output", "far"),
    )
    assert trained.exit_code == 0, trained.output
    Path("alone").mkdir()
    shutil.copy("far/patch.safetensors", "alone/")
    for folder in ("far", "alone"):
        output = f"{folder}-merged"
        merged = run(
            *("merge", "bare", "--tokenizer", whole, "--patch", f"{folder}/patch.safetensors"),
            *("--output", output),
        )
        assert merged.exit_code == 0, merged.output
        card = Path(output, "README.md").read_text()
        assert str(clinic) not in card
        assert "--tokenizer whole --output merged" in card
        assert ("--corpus 'text:PATH/*.txt'" in card) == (folder == "far")
    patch = uploads_of(Path("far/patch.safetensors"), Told(runs_beside([Path("far/patch")])))
    text = b"".join(each.content for each in patch if isinstance(each.content, bytes)).decode()
    assert "hs.load('bare', tokenizer='whole')" in text
    assert str(clinic) not in text


def test_a_run_of_a_version_that_did_not_say_how_it_was_loaded_says_so_when_it_is_resumed(
    clinic: Path,
) -> None:
    Plan(model="bare", rule="heads", heads=(PlannedHead(id=HeadId(1, 2)),)).save("one.yaml")
    words = ("operate", "bare", "--tokenizer", "whole", "--plan", "one.yaml", "--corpus", CORPUS)
    for _ in range(2):
        done = run(*words, "--length", "48", *OTHERS[1], "--yes", "--output", "old")
        assert done.exit_code == 0, done.output
        content = json.loads(Path("old/run.json").read_text())
        assert content.pop("loaded_with") == {
            "tokenizer": "whole",
            "trust_remote_code": False,
        }
        Path("old/run.json").write_text(json.dumps(content))
        assert read_run_file(Path("old")).loaded_with is None


def test_the_command_of_a_diagnosis_measures_the_same(clinic: Path) -> None:
    options = (*READING, *OTHERS[0], "--dtype", "bf16", "--seed", "3", "--split", "test")
    loading = ("--tokenizer", "whole", "--trust-remote-code")
    found = run("diagnose", "bare", "--corpus", CORPUS, *loading, *options, "--output", "first")
    assert found.exit_code == 0, found.output
    command = page_of([clinic / "first"]).command
    again = run(*shlex.split(command.replace("DIR", "again"))[1:])
    assert again.exit_code == 0, again.output
    first, second = (
        Diagnosis.load(clinic / name / "diagnosis.json") for name in ("first", "again")
    )
    assert first.stats.provenance == second.stats.provenance
    assert first.thresholds == second.thresholds


def test_after_given_texts_a_plan_names_what_else_was_asked_for(clinic: Path) -> None:
    Path("texts.json").write_text(json.dumps(["the head sleeps again and again"] * 8))
    found = run(
        *("diagnose", "whole", "--corpus", "texts:texts.json", "--first-token", "none"),
        *("--sink", "0.09", "--output", "given"),
    )
    assert found.exit_code == 0, found.output
    planned = run(*following(found.stdout, "plan"), "--no-costs", "--overwrite")
    told = following(planned.stdout, "operate")
    assert told[told.index("--corpus") + 1] == "SPEC"
    assert told[told.index("--first-token") + 1] == "none"
    assert "--length" not in told
    command = page_of([clinic / "given"]).command
    assert "--corpus texts:texts.json --first-token none --dtype fp32 --sink 0.09" in command


def test_a_plan_is_followed_by_no_first_token_that_is_the_usual_one(clinic: Path) -> None:
    for name in ("tokenizer", "none"):
        options = ("--first-token", name, *OTHERS[0], "--length", "48")
        found = run("diagnose", "whole", "--corpus", CORPUS, *options, "--output", name)
        assert found.exit_code == 0, found.output
        planned = run(*following(found.stdout, "plan"), "--cost-count", "2", "--overwrite")
        told = following(planned.stdout, "operate")
        recorded = Diagnosis.load(clinic / name / "diagnosis.json").stats.provenance.first_token
        assert (recorded == "none") == ("--first-token" in told)
