"""The card of a merged checkpoint: what the Hub reads of it, and what a reader must know."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from headsurgeon.cli.merge import read_evaluation
from headsurgeon.errors import InputError
from headsurgeon.heads import HeadId
from headsurgeon.operation.model_card import Operated, Told, header_of, model_card, on_the_hub
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import CORPUS, READING, checkpoint, run, sick_bloom, write_text

BASE = """---
license: bigscience-bloom-rail-1.0
language: [en, fr]
tags: [text, bloom]
model-index: []
---
# Base
"""
HEADS = (HeadId(1, 2), HeadId(1, 3), HeadId(2, 0))
PLAN = Plan(
    model="bigscience/bloom-560m@main",
    rule="sick",
    joint_cost=0.0014,
    heads=tuple(PlannedHead(id=head) for head in HEADS),
)
DONE = Operated(
    PLAN, 3, "xavier_uniform_head", "zero_output", ["patch.safetensors"], "ab12", "fp32"
)


def test_the_header_is_one_that_the_hub_reads() -> None:
    data = ModelCard(model_card(DONE, Told(), BASE, None)).data.to_dict()
    assert data["base_model"] == "bigscience/bloom-560m"
    assert data["license"] == "bigscience-bloom-rail-1.0"
    assert data["language"] == ["en", "fr"]
    assert data["tags"] == ["text", "bloom", "headsurgeon", "attention-sink"]
    assert "model-index" not in data


def test_a_folder_of_this_machine_is_no_base_model_and_its_path_stays_here() -> None:
    plan = PLAN.model_copy(update={"model": "/home/somebody/secret/base"})
    card = model_card(Operated(plan, 0, "i", "o", ["p"], "ab", "fp32"), Told(), None, "LICENSE.md")
    assert "secret" not in card
    data = ModelCard(card).data.to_dict()
    assert "base_model" not in data
    assert (data["license"], data["license_link"]) == ("other", "LICENSE.md")


def test_what_is_not_known_is_said() -> None:
    card = model_card(DONE, Told(), None, None)
    assert "- layer 1: heads 2, 3\n- layer 2: heads 0" in card
    assert "Not known: no `run.json`" in card
    assert "No figures came with it, so nothing is claimed." in card
    assert "planted" not in card
    assert "The collapse of the base was **planted**" in model_card(DONE, Told(), "planted", None)


@pytest.mark.parametrize("card", ["", "no header", "---\nopen", "---\n- a\n---", "---\n: [\n---"])
def test_a_card_without_a_header_has_none(card: str) -> None:
    assert header_of(card) == {}


@pytest.mark.parametrize(
    ("model", "is_id"),
    [
        ("owner/name", True),
        ("owner/name@v1/sub", True),
        ("./name", False),
        ("/a/b", False),
        ("a/b/c", False),
        ("zoo:bloom-mini", False),
        ("name", False),
    ],
)
def test_an_id_of_the_hub_is_told_from_a_path(model: str, is_id: bool) -> None:
    assert on_the_hub(model) is is_id


def test_merge_writes_a_card_with_plan_text_figures_and_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = checkpoint(tmp_path / "base", sick_bloom())
    (base / "README.md").write_text(BASE)
    (base / "LICENSE").write_text("free")
    (base / "chat_template.jinja").write_text("{{ messages }}")
    write_text(tmp_path / "docs")
    for words in (
        ("diagnose", "base", *READING, "--output", "sick"),
        ("plan", "sick/diagnosis.json", "--rule", "sick", "-o", "plan.yaml", "--no-costs"),
        (
            *("operate", "base", "--plan", "plan.yaml", "--corpus", CORPUS, "--output", "first"),
            *("--length", "32", "--max-tokens", "512", "--learning-rate", "2e-3", "--yes"),
        ),
        (
            *("evaluate", "base", "--patch", "first/patch.safetensors", *READING),
            *("--output", "figures.json"),
        ),
        (
            *("merge", "base", "--patch", "first/patch.safetensors", "--output", "merged"),
            *("--evaluation", "figures.json"),
        ),
    ):
        said = run(*words)
        assert said.exit_code == 0, said.output
    merged = tmp_path / "merged"
    card = (merged / "README.md").read_text()
    figures = json.loads(Path("figures.json").read_text())
    (change,) = figures["differences"].values()
    assert f"{change['value']:+.4f} [{change['low']:.4f}, {change['high']:.4f}] nats" in card
    assert f"text `{CORPUS}`, split train" in card
    assert "headsurgeon operate base --plan plan.yaml" in card
    assert " --learning-rate 0.002" in card
    assert "--max-tokens 512" in card
    assert "--beta1" not in card
    assert str(tmp_path) not in card
    assert (merged / "BASE_README.md").read_text() == BASE
    assert (merged / "LICENSE").read_text() == "free"
    assert (merged / "chat_template.jinja").exists()
    assert Plan.load(merged / "plan.yaml").operated == Plan.load("plan.yaml").operated
    assert ModelCard.load(merged / "README.md").data.to_dict()["language"] == ["en", "fr"]


@pytest.mark.parametrize("figures", ["1", '{"a": {}}', '{"a": {"nll": 1}}'])
def test_a_file_that_is_no_evaluation_is_refused(figures: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text(f'{{"kind": "evaluation", "schema": 3, "evaluations": {figures}}}')
    with pytest.raises(InputError, match="not the figures that headsurgeon evaluate"):
        read_evaluation(path)
