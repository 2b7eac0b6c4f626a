"""The commands that are printed to be typed next read the same text with the same tokenizer."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headsurgeon.diagnosis import Diagnosis
from headsurgeon.report.run_page import command_of
from headsurgeon.training.run_file import read_run_file
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
    assert f"headsurgeon operate bare --plan plan.yaml --output DIR {named} " in command_of(made)
    card = Path("repaired/README.md").read_text()
    assert f"headsurgeon operate bare --plan plan.yaml --output run {named} " in card
    assert f"headsurgeon merge bare --patch run/patch.safetensors {named} " in card


def test_a_plan_is_followed_by_no_first_token_that_is_the_usual_one(clinic: Path) -> None:
    for name in ("tokenizer", "none"):
        options = ("--first-token", name, *OTHERS[0], "--length", "48")
        found = run("diagnose", "whole", "--corpus", CORPUS, *options, "--output", name)
        assert found.exit_code == 0, found.output
        planned = run(*following(found.stdout, "plan"), "--cost-count", "2", "--overwrite")
        told = following(planned.stdout, "operate")
        recorded = Diagnosis.load(clinic / name / "diagnosis.json").stats.provenance.first_token
        assert (recorded == "none") == ("--first-token" in told)
