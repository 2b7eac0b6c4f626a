"""Models of the Hub without the Hub: what the local cache lacks is named."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import headsurgeon as hs
from headsurgeon.errors import HeadsurgeonWarning, ModelError, NetworkError
from headsurgeon.models.loading import load_config
from headsurgeon.models.origin import checkpoint_folder
from headsurgeon.operation.merged_checkpoint import write_checkpoint
from tests.clinic import checkpoint, sick_bloom

COMMIT = "a" * 40
MODEL = "someone/pico"
CODE = {"AutoConfig": "configuration_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in a cache as the Hub's client keeps it."""
    place = tmp_path / "hub" / "models--someone--pico"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return checkpoint(place / "snapshots" / COMMIT, sick_bloom())


def change(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_not_in_the_cache_is_named(snapshot: Path, name: str) -> None:
    hs.load(MODEL)
    (snapshot / name).unlink()
    with pytest.raises(NetworkError, match=rf"{MODEL}: not in the local cache \({name}\)"):
        hs.load(MODEL)


def test_shards_that_are_not_in_the_cache_are_named(snapshot: Path) -> None:
    model, _ = hs.load(MODEL)
    (snapshot / "model.safetensors").unlink()
    model.save_pretrained(snapshot, max_shard_size="20KB")
    lost = sorted(snapshot.glob("model-*.safetensors"))[1:3]
    for shard in lost:
        shard.unlink()
    with pytest.raises(NetworkError, match=rf"\({lost[0].name}, {lost[1].name}\)"):
        hs.load(MODEL)


def test_the_rest_of_a_vocabulary_is_named(snapshot: Path) -> None:
    (snapshot / "tokenizer.json").unlink()
    change(snapshot / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    (snapshot / "vocab.json").write_text('{"a": 0}', encoding="utf-8")
    with pytest.raises(NetworkError, match=r"\(tokenizer\.json, merges\.txt\)"):
        hs.load(MODEL)


def test_a_tokenizer_of_special_tokens_alone_is_none(snapshot: Path) -> None:
    (snapshot / "tokenizer.json").unlink()
    change(snapshot / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    with pytest.raises(NetworkError, match=r"not in the local cache \(tokenizer\.json\)"):
        hs.load(MODEL)
    with pytest.raises(ModelError, match="found no tokenizer beside the weights"):
        hs.load(str(snapshot))


def test_code_of_its_own_that_is_not_in_the_cache_is_named_where_it_may_run(
    snapshot: Path,
) -> None:
    change(snapshot / "config.json", auto_map=CODE)
    hs.load(MODEL)
    with pytest.raises(NetworkError, match=r"\(configuration_own\.py, modeling_own\.py\)"):
        hs.load(MODEL, trust_remote_code=True)
    change(
        snapshot / "config.json",
        auto_map={"AutoConfig": "other/code--configuration_own.Config"},
        model_type="unheard",
    )
    with pytest.raises(ModelError, match="trust_remote_code"):
        load_config(MODEL)
    with pytest.raises(NetworkError, match=r"\(configuration_own\.py of other/code\)"):
        load_config(MODEL, trust_remote_code=True)


def test_a_tokenizer_without_its_configuration_is_said_to_be_one(snapshot: Path) -> None:
    (snapshot / "tokenizer_config.json").unlink()
    with pytest.warns(
        HeadsurgeonWarning, match=r"tokenizer_config\.json is not in the local cache"
    ):
        hs.load(MODEL)
    # what the Hub said there is not need not be asked for
    noted = snapshot.parents[1] / ".no_exist" / COMMIT
    noted.mkdir(parents=True)
    (noted / "tokenizer_config.json").touch()
    hs.load(MODEL)


def test_what_merge_leaves_out_offline_is_named(snapshot: Path, tmp_path: Path) -> None:
    model, tokenizer = hs.load(MODEL)
    (snapshot / "generation_config.json").unlink(missing_ok=True)
    patient = hs.operate(model, hs.Plan(model=MODEL, heads=({"id": "L1H1"},)))
    patient.merge()
    with pytest.warns(
        HeadsurgeonWarning, match=r"lacks special_tokens_map.*generation_config\.json"
    ):
        write_checkpoint(patient, tokenizer, tmp_path / "merged", [])


def test_a_model_of_the_hub_is_merged_as_it_is_stored(snapshot: Path, tmp_path: Path) -> None:
    sick_bloom().half().save_pretrained(snapshot)
    (snapshot / "notes.txt").write_text("of the repository", encoding="utf-8")
    model, tokenizer = hs.load(MODEL)
    assert checkpoint_folder(model) == snapshot
    patient = hs.operate(model, hs.Plan(model=MODEL, heads=({"id": "L1H1"},)))
    patient.merge()
    with pytest.warns(HeadsurgeonWarning, match="cannot be asked what lies beside"):
        write_checkpoint(patient, tokenizer, tmp_path / "merged", [], as_stored=True)
    assert (tmp_path / "merged" / "notes.txt").exists()
    name = "transformer.h.0.mlp.dense_h_to_4h.weight"
    merged = load_file(tmp_path / "merged" / "model.safetensors")[name]
    assert torch.equal(merged, load_file(snapshot / "model.safetensors")[name])
    assert merged.dtype == torch.float16
