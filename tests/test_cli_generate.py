"""`headsurgeon generate`: files, page and terminal, of the model, its patches and another model."""

import csv
import re
from pathlib import Path

import pytest

import headsurgeon as hs
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.report.generation_page import page
from headsurgeon.report.page import render
from tests.clinic import checkpoint, run, sick_bloom

PROMPTS = """kind: prompts
prompts:
- {id: sea, kind: narrative, text: "The sea <b>was</b>"}
- {id: code, kind: code, text: "def f(x):"}
- {id: mer, kind: multilingual, language: fr, text: "La mer"}
"""
SHORT = ("--max-new-tokens", "8")


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "sick", sick_bloom())
    (tmp_path / "prompts.yaml").write_text(PROMPTS)
    return tmp_path


def patched(folder: Path, name: str, head: hs.HeadId, before: tuple[str, ...] = ()) -> None:
    """A patch of one head, on what the patches before it made of the model."""
    model, _ = hs.load("sick")
    for patch in before:
        hs.apply_patch(model, folder / patch)
    plan = Plan(model="sick", rule="heads", heads=(PlannedHead(id=head),))
    hs.operate(model, plan, seed=3).save(folder / name)


def test_a_model_its_patches_and_another_stand_side_by_side(clinic: Path) -> None:
    patched(clinic, "one.safetensors", hs.HeadId(1, 2))
    patched(clinic, "two.safetensors", hs.HeadId(1, 3), ("one.safetensors",))
    chain = ("--patch", "one.safetensors", "--patch", "two.safetensors")
    words = ("generate", "sick", *chain, "--baseline", "sick", "--prompts", "prompts.yaml", *SHORT)
    said = run(*words, "--output", "out")
    assert said.exit_code == 0, said.stderr
    found = hs.Generation.load("out/generation.json")
    names = [model.name for model in found.models]
    assert names == ["sick", "with one.safetensors + two.safetensors", "sick (baseline)"]
    assert found.models[1].patches == ("one.safetensors", "two.safetensors")
    assert found.models[0].completions == found.models[2].completions
    assert found.models[0].completions != found.models[1].completions
    assert found.sampling == hs.Sampling(max_new_tokens=8)
    rows = list(csv.DictReader(Path("out/measures.csv").read_text().splitlines()))
    assert {row["kind"] for row in rows} == {"all", "narrative", "code", "multilingual"}
    lengths = [row for row in rows if (row["measure"], row["kind"]) == ("length", "all")]
    assert [row["minus"] for row in lengths] == ["", "", "", "sick", "sick"]
    assert float(lengths[-1]["value"]) == 0.0
    html = Path("out/completions.html").read_text()
    assert "The sea &lt;b&gt;was&lt;/b&gt;" in html
    assert "<b>" not in html
    shown = " ".join(said.stdout.split())
    for part in ("temperature 0.7, top-k 50, top-p 0.92", "repeated 4-grams", "Whether a text"):
        assert part in shown
    # the same again, greedily, in the same folder
    said = run(*words, "--greedy", "--output", "out")
    assert said.exit_code == 0, said.stderr
    assert "the likeliest token each time" in " ".join(said.stdout.split())


def test_nothing_that_a_model_says_reaches_terminal_or_page_unescaped(clinic: Path) -> None:
    said = run("generate", "sick", "--prompts", "prompts.yaml", *SHORT, "--output", "out")
    assert said.exit_code == 0, said.stderr
    found = hs.Generation.load("out/generation.json")
    nasty = "\x1b[31m<script>alert(1)</script>\u202e\nline two"
    [model] = found.models
    done = tuple(each.replace(text=nasty) for each in model.completions)
    html = render(page(found.replace(models=(model.replace(name="\x1b[2J", completions=done),))))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", html)
    # its data and its own script
    assert html.count("<script") == 2
    assert "&lt;script&gt;" in html
    assert "\nline two" in html
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202e]", said.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompts", "none.yaml", "--output", "out"), "none.yaml"),
        (("--prompts", "prompts.yaml", "--output", "out", "--temperature", "0"), "temperature"),
        (("--prompts", "prompts.yaml", "--output", "prompts.yaml"), "is a file"),
        (("--prompts", "prompts.yaml", "--output", "o", "--patch", "no.safetensors"), "no.safe"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    clinic: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = run("generate", "missing-model", *arguments)
    assert said.exit_code == 2
    assert message in " ".join(said.stderr.split())
    assert not (clinic / "out").exists()
