"""Faults that an attack found: each claim with the case that broke it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import headsurgeon as hs
from headsurgeon.data import documents
from headsurgeon.errors import CorpusError, HeadsurgeonWarning, ModelError
from headsurgeon.scores import Evaluation
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text
from tests.pico import pico, tokens
from tests.pico_families import pico_family

READING = ("--corpus", CORPUS, "--length", "32", "--count", "4", "--split", "train")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("bloom"), sick_bloom())
    write_text(Path("docs"))
    return tmp_path


def test_a_parameter_that_is_stored_twice_is_refused(here: Path) -> None:
    tensors = load_file("bloom/model.safetensors")
    name = "transformer.h.0.self_attention.query_key_value.weight"
    tensors[name.removeprefix("transformer.")] = torch.randn_like(tensors[name])
    save_file(tensors, "bloom/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="both are for one parameter"):
        hs.load("bloom")


def test_a_tensor_in_two_shards_is_refused(here: Path) -> None:
    tensors = load_file("bloom/model.safetensors")
    Path("bloom/model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    first = next(iter(tensors))
    save_file(tensors, f"bloom/{names[0]}", metadata={"format": "pt"})
    save_file({first: tensors[first] + 1}, f"bloom/{names[1]}", metadata={"format": "pt"})
    weight_map = dict.fromkeys(tensors, names[0]) | {first: names[1]}
    index = {"metadata": {}, "weight_map": weight_map}
    Path("bloom/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="stored in two files"):
        hs.load("bloom")


@pytest.mark.parametrize("name", ["bloom/config.json", "notes.txt", "plan.yaml", "other.json"])
def test_evaluate_replaces_nothing_but_an_earlier_evaluation(here: Path, name: str) -> None:
    if not Path(name).exists():
        Path(name).write_text("{}")
    before = Path(name).read_bytes()
    said = run("evaluate", "bloom", *READING, "--output", name)
    assert said.exit_code == 2
    assert "no earlier evaluation" in said.stderr
    assert Path(name).read_bytes() == before


def test_evaluate_may_write_its_own_result_again(here: Path) -> None:
    for _ in range(2):
        assert run("evaluate", "bloom", *READING, "--output", "e.json").exit_code == 0


def test_inspect_replaces_nothing_but_a_picture_of_ours(here: Path) -> None:
    words = ("inspect", "bloom", "L1H2", "--text", "some words", "--output", "photo.png")
    Path("photo.png").write_bytes(b"\x89PNG mine")
    assert run(*words).exit_code == 2
    assert Path("photo.png").read_bytes() == b"\x89PNG mine"
    Path("photo.png").unlink()
    assert run(*words).exit_code == 0
    assert run(*words).exit_code == 0


def test_a_perplexity_beyond_float64_is_infinite_and_costs_no_result() -> None:
    one = np.ones(1)
    found = Evaluation(
        model="m",
        corpus="c",
        split="test",
        length=2,
        stride=2,
        corpus_hash="h",
        count=1,
        first_token="none",
        seed=0,
        documents=("d",),
        document_nll=1e4 * one,
        document_tokens=one,
    )
    assert found.perplexity == float("inf")
    assert found.model_dump()["nll"]["value"] == 1e4


def test_paths_and_torchs_names_of_dtypes_are_taken(here: Path) -> None:
    model, _ = hs.load(Path("bloom"), dtype="bfloat16")
    assert model.dtype == torch.bfloat16


@pytest.mark.parametrize("ids", [[[1, -100, 3]], [[-1, -2, -3]]])
def test_token_ids_below_0_are_refused(ids: list[list[int]]) -> None:
    for function in (hs.evaluate, hs.measure):
        with pytest.raises(CorpusError, match="below 0"):
            function(pico("bloom"), torch.tensor(ids))


def test_utf16_is_refused_and_a_byte_order_mark_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("the same words")
    (tmp_path / "marked.txt").write_bytes("the same words".encode("utf-8-sig"))
    plain, marked = sorted(documents(f"text:{tmp_path}/*.txt"), key=lambda found: -len(found.id))
    assert plain.text == marked.text
    assert plain.split_key == marked.split_key
    (tmp_path / "wide.txt").write_bytes("words".encode("utf-16-le"))
    with pytest.raises(CorpusError, match="NUL"):
        list(documents(f"text:{tmp_path}/wide.txt"))


def test_files_of_rows_read_as_text_are_remarked_upon(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "words"}\n')
    with pytest.warns(HeadsurgeonWarning, match="hf:"):
        list(documents(f"text:{tmp_path}/rows.jsonl"))


def test_the_beginning_of_an_article_is_where_all_of_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "wiki"
    folder.mkdir()
    rows = []
    for article in range(6):
        rows += [
            f" = Article {article} = \n",
            *[f" line {line} of {article} \n" for line in range(4)],
        ]
    lines = "\n".join(json.dumps({"text": row}) for row in rows)
    (folder / "train.jsonl").write_text(lines)
    whole = {each.place: each.split_key for each in documents(f"hf:{folder}")}
    for count in (3, 7, 12, 23):
        for each in documents(f"hf:{folder}::train[:{count}]"):
            assert whole[each.place] == each.split_key


@pytest.mark.parametrize("change", ["hook", "factor"])
def test_a_head_that_computes_something_else_is_refused(change: str) -> None:
    model = pico_family("cohere")
    if change == "hook":
        model.lm_head.register_forward_hook(lambda module, inputs, output: output * 3)
    else:
        model.logit_scale = 5.0
    with pytest.raises(ModelError, match="a hook or a changed attribute"):
        hs.evaluate(model, tokens(2, 24))


def test_another_model_of_the_same_shape_is_not_planned_for(here: Path) -> None:
    checkpoint(Path("other"), sick_bloom(seed=1))
    shutil.copytree("bloom", "moved")
    said = run("diagnose", "bloom", *READING, "--output", "found")
    assert said.exit_code == 0
    words = ("plan", "found/diagnosis.json", "--no-costs", "-o")
    said = run(*words, "wrong.yaml", "--model", "other")
    assert said.exit_code == 2
    assert "not the model that was diagnosed" in said.stderr
    assert not Path("wrong.yaml").exists()
    assert run(*words, "right.yaml", "--model", "moved").exit_code == 0


def test_hints_carry_the_length_that_was_used(here: Path) -> None:
    run("diagnose", "bloom", *READING, "--output", "found")
    said = run("plan", "found/diagnosis.json", "--no-costs", "-o", "plan.yaml")
    assert "--length 32" in " ".join(said.stdout.split())
