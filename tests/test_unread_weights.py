"""Every stored weight is read, or the checkpoint is refused in words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import headsurgeon as hs
from headsurgeon.errors import ModelError, SettingsError
from headsurgeon.models.loading import load_config
from tests.char_tokenizer import char_tokenizer
from tests.pico import pico, tokens
from tests.pico_families import pico_family


def stored(folder: Path, family: str, **over: Any) -> Path:
    model = pico(family, **over) if family in ("bloom", "mpt") else pico_family(family, **over)
    model.save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


def add(folder: Path, **tensors: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | tensors, path, {"format": "pt"})


def configure(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content), encoding="utf-8")


def test_biases_that_the_configuration_denies_are_not_lost_in_silence(tmp_path: Path) -> None:
    stored(tmp_path, "llama-bias")
    configure(tmp_path, attention_bias=False)
    with pytest.raises(ModelError, match=r"no place for .*self_attn\..*bias.* and \d+ more"):
        hs.load(str(tmp_path))


def test_a_layer_more_than_the_configuration_counts_is_not_lost_in_silence(tmp_path: Path) -> None:
    stored(tmp_path, "bloom")
    configure(tmp_path, n_layer=2)
    with pytest.raises(ModelError, match=r"no place for .*h\.2\."):
        hs.load(str(tmp_path))


MASK = torch.ones(1, 1, 16, 16).tril()
GPT2_MASK = "transformer.h.0.attn.bias"
NEOX_MASK = "gpt_neox.layers.0.attention.bias"
LLAMA_TABLE = "model.layers.0.self_attn.rotary_emb.inv_freq"


def frequencies(theta: float = 10_000.0) -> torch.Tensor:
    """Of heads of eight numbers, as every pico model has them."""
    return 1.0 / theta ** (torch.arange(0, 8, 2) / 8)


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        ("gpt2", GPT2_MASK, MASK),
        ("gpt2", GPT2_MASK, MASK.bool()),
        ("gpt2", GPT2_MASK, MASK.half()),
        ("gpt2", "transformer.h.0.attn.masked_bias", torch.tensor(-1e4)),
        ("gpt2", "transformer.h.0.attn.masked_bias", torch.tensor(-1e9).half()),
        ("gpt_neox", NEOX_MASK, MASK.to(torch.uint8)),
        ("gpt_neox", "gpt_neox.layers.1.attention.masked_bias", torch.tensor([-1e9])),
        ("llama", LLAMA_TABLE, frequencies()),
        ("llama", LLAMA_TABLE, frequencies().half()),
        ("llama", "model.rotary_emb.inv_freq", frequencies().bfloat16()),
        ("llama", "model.position_ids", torch.arange(16)[None]),
    ],
)
def test_masks_and_tables_of_older_versions_are_no_weights(
    tmp_path: Path, family: str, name: str, value: torch.Tensor
) -> None:
    stored(tmp_path, family)
    add(tmp_path, **{name: value})
    hs.load(str(tmp_path))


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        ("gpt2", GPT2_MASK, torch.ones(1, 1, 16, 16)),
        ("gpt2", GPT2_MASK, MASK.triu(-4)),
        ("gpt2", GPT2_MASK, MASK[:, :, :8]),
        ("gpt2", "transformer.h.1.attn.masked_bias", torch.tensor(-1.0)),
        ("gpt2", "transformer.h.1.attn.masked_bias", torch.tensor(float("nan"))),
        ("gpt_neox", NEOX_MASK, MASK.mT.contiguous()),
        ("gpt_neox", "gpt_neox.layers.0.attention.rotary_emb.inv_freq", frequencies()),
        ("llama", LLAMA_TABLE, frequencies(500_000.0)),
        ("llama", LLAMA_TABLE, frequencies(500_000.0).half()),
        ("llama", LLAMA_TABLE, frequencies() / 4),
        ("llama", LLAMA_TABLE, frequencies()[:2]),
        ("llama", LLAMA_TABLE, torch.full((4,), float("nan"))),
        ("llama", "model.position_ids", torch.arange(1, 17)[None]),
        ("bloom", "transformer.rotary_emb.inv_freq", frequencies()),
    ],
)
def test_masks_and_tables_of_another_model_are_refused_by_name(
    tmp_path: Path, family: str, name: str, value: torch.Tensor
) -> None:
    stored(tmp_path, family)
    add(tmp_path, **{name: value})
    with pytest.raises(ModelError, match=rf"{name} is stored with other values than"):
        hs.load(str(tmp_path))


def test_a_table_stored_before_a_linear_scaling_is_that_of_the_scaled_model(tmp_path: Path) -> None:
    scaling = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}
    stored(tmp_path, "llama", rope_parameters=scaling)
    add(tmp_path, **{LLAMA_TABLE: frequencies(), "model.rotary_emb.inv_freq": frequencies() / 4})
    hs.load(str(tmp_path))


def test_a_bias_under_the_name_of_a_mask_is_no_mask(tmp_path: Path) -> None:
    stored(tmp_path, "gpt2")
    add(tmp_path, **{"transformer.h.0.attn.bias": torch.ones(32)})
    with pytest.raises(ModelError, match=r"no place for .*attn\.bias"):
        hs.load(str(tmp_path))


def test_a_shard_that_the_index_does_not_name_is_refused(tmp_path: Path) -> None:
    stored(tmp_path, "llama")
    save_file({"more": torch.ones(2)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors would not be read"):
        hs.load(str(tmp_path))


def test_two_different_heads_are_not_tied_in_silence(tmp_path: Path) -> None:
    folder = stored(tmp_path, "llama")
    configure(folder, tie_word_embeddings=True)
    with pytest.raises(ModelError, match="tie_word_embeddings"):
        hs.load(str(folder))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_of_few_bits_without_scales_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    stored(tmp_path, "llama")
    name = "model.layers.1.mlp.up_proj.weight"
    weight = load_file(tmp_path / "model.safetensors")[name]
    add(tmp_path, **{name: (weight * 100).to(dtype)})
    with pytest.raises(ModelError, match=r"up_proj\.weight is stored as .* no scale"):
        hs.load(str(tmp_path))


def test_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    stored(tmp_path, "bloom")
    name = "transformer.word_embeddings.weight"
    add(tmp_path, **{name: torch.ones(50, 32)})
    with pytest.raises(ModelError, match=r"word_embeddings\.weight is \[50, 32\].*\[97, 32\]"):
        hs.load(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ["adapter_config.json"],
        ["adapter_config.json", "adapter_model.safetensors"],
        ["adapter_model.bin"],
        ["adapters.safetensors"],
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_an_adapter_is_refused_beside_a_whole_checkpoint_and_alone(
    tmp_path: Path, names: list[str], whole: bool
) -> None:
    if whole:
        stored(tmp_path, "llama")
    for name in names:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    for read in (hs.load, load_config):
        with pytest.raises(ModelError, match=r"holds an adapter .*merge it into its base first"):
            read(str(tmp_path))


def test_a_dtype_may_be_named_as_on_the_command_line(tmp_path: Path) -> None:
    stored(tmp_path, "llama")
    model, _ = hs.load(str(tmp_path), dtype="bf16")
    assert model.dtype == torch.bfloat16
    assert torch.isfinite(model(tokens()).logits).all()
    with pytest.raises(SettingsError, match="expected a dtype"):
        hs.load(str(tmp_path), dtype="float9")


def test_a_configuration_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    stored(tmp_path, "llama")
    path = tmp_path / "config.json"
    before = path.read_text(encoding="utf-8")
    configure(tmp_path, rope_theta=500_000.0)
    with pytest.raises(ModelError, match=r"rope_theta is 500000\.0, and 10000\.0 in rope_param"):
        hs.load(str(tmp_path))
    path.write_text(before.replace("{", '{"num_attention_heads": 8,', 1), encoding="utf-8")
    with pytest.raises(ModelError, match="num_attention_heads is given twice"):
        hs.load(str(tmp_path))
