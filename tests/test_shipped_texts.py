"""Texts that come with the package: their kinds and sizes, and a diagnosis of one of them."""

import csv
import json
from pathlib import Path

import pytest
import torch

import headsurgeon as hs
from headsurgeon.data import given_file
from headsurgeon.data.shipped_texts import PROMPTS, TEXTS, shipped_file, shipped_names
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import CorpusError
from tests.clinic import checkpoint, run, sick_bloom


def contents(name: str) -> dict[str, str]:
    path = given_file(f"texts:{name}")
    assert path is not None
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_names_are_those_that_the_module_lists() -> None:
    texts = ["own/diagnostic", "own/held-out", "own/mixed", "own/probes", "paper/diagnostic"]
    assert shipped_names(TEXTS) == texts
    prompts = ["own/prompts-10", "own/prompts-12", "own/prompts-50", "paper/prompts-40"]
    assert shipped_names(PROMPTS) == prompts


@pytest.mark.parametrize("source", ["own", "paper"])
def test_the_diagnostic_is_one_paragraph_of_forty_words_in_six_sentences(source: str) -> None:
    [text] = contents(f"{source}/diagnostic").values()
    assert (len(text.split()), len(text), text.count(".")) == (40, 258, 6)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("own/probes", {"all": (8, 56, 113)}),
        ("own/mixed", {"prose": (8, 85, 125), "code": (6, 56, 165), "mixed": (3, 115, 234)}),
        ("own/held-out", {"all": (12, 83, 143)}),
    ],
)
def test_own_sets_are_of_the_sizes_of_the_papers(
    name: str, sizes: dict[str, tuple[int, int, int]]
) -> None:
    found = contents(name)
    for kind, (count, shortest, longest) in sizes.items():
        lengths = [len(text) for key, text in found.items() if kind in ("all", key.split()[0])]
        assert len(lengths) == count
        assert shortest <= min(lengths) <= max(lengths) <= longest
    assert len(set(found.values())) == len(found)


def test_probes_have_as_many_characters_as_the_papers_and_half_of_them_are_code() -> None:
    found = list(contents("own/probes").values())
    assert sum(map(len, found)) == 680
    for snippet in found[4:]:
        compile(snippet, "probe", "exec")


def test_the_papers_texts_come_with_their_notice() -> None:
    path = given_file("texts:paper/diagnostic")
    assert path is not None
    assert "Permission is hereby granted" in (path.parent / "LICENSE").read_text()
    assert "github.com/Palmerschallon/bloom-head-surgery" in (path.parent / "README.md").read_text()


def test_a_name_that_there_is_not_is_refused_and_the_others_are_listed() -> None:
    with pytest.raises(CorpusError, match=r"no texts 'own/probe'.*own/probes.*\./own/probe"):
        given_file("texts:own/probe")
    assert shipped_file("./own/probes", TEXTS) is None
    assert given_file("texts:./own/probes.json") == Path("own/probes.json")


def test_one_paragraph_is_diagnosed_over_all_its_rows_without_an_added_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("sick"), sick_bloom())
    corpus = ("--corpus", "texts:own/diagnostic", "--first-token", "none")
    said = run("diagnose", "sick", *corpus, "--output", "out")
    assert said.exit_code == 0, said.stderr
    model, tokenizer = hs.load("sick")
    [text] = contents("own/diagnostic").values()
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    model.set_attn_implementation("eager")
    with torch.no_grad():
        maps = model(input_ids=ids, output_attentions=True).attentions
    rows = list(csv.DictReader(Path("out/heads.csv").read_text().splitlines()))
    assert len(rows) == sum(len(layer[0]) for layer in maps)
    for row in rows:
        probabilities = maps[int(row["layer"])][0, int(row["head"])].double()
        # row 0, which is always 1, counts too: that is what the paper's code does
        assert float(row["first_token_mass"]) == pytest.approx(
            float(probabilities[:, 0].mean()), abs=1e-5
        )
        entropy = -(probabilities.clamp(min=1e-10).log() * probabilities).sum(-1).mean()
        assert float(row["entropy"]) == pytest.approx(float(entropy), abs=1e-4)
    found = Diagnosis.load("out/diagnosis.json")
    assert found.stats.provenance.first_token == "none"
    assert not found.borderline.any()
