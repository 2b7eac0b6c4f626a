"""Loading by name: folders, the Hub, and every way in which it can fail."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig

import headsurgeon as hs
from headsurgeon.errors import ModelError, NetworkError, SettingsError, UnsupportedModel
from headsurgeon.models.device import pick_device, pick_dtype
from tests.char_tokenizer import char_tokenizer
from tests.pico import pico, tokens


def test_a_folder_loads_in_fp32_and_in_eval_mode(tmp_path: Path) -> None:
    pico("bloom").to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer = char_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    model, loaded_tokenizer = hs.load(str(tmp_path))
    assert model.dtype == torch.float32
    assert not model.training
    assert model.name_or_path == str(tmp_path)
    assert loaded_tokenizer.get_vocab() == tokenizer.get_vocab()
    half, _ = hs.load(str(tmp_path), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_an_encoder_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match=r"bert.*bloom"):
        hs.load(str(tmp_path))


def test_a_checkpoint_without_weights_is_an_error_in_one_line(tmp_path: Path) -> None:
    pico("bloom").config.save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        hs.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    pico("bloom").save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be loaded"):
        hs.load(str(tmp_path))


@pytest.mark.parametrize("spec", ["./nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_an_error(spec: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        hs.load(spec)


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        hs.load(str(tmp_path))


def test_an_unknown_zoo_name_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match="zoo:bloom-mini-collapsed"):
        hs.load("zoo:bloom-maxi")


def test_a_hub_id_without_a_network_says_so() -> None:
    with pytest.raises(NetworkError, match="cannot be reached"):
        hs.load("headsurgeon-tests/not-in-any-cache")


def test_weights_that_are_not_numbers_are_named() -> None:
    model = pico("bloom")
    with torch.no_grad():
        model.get_parameter("transformer.h.1.self_attention.dense.weight")[0, 0] = torch.nan
    with pytest.raises(ModelError, match=r"layer 2.*h\.1\.self_attention\.dense\.weight"):
        hs.measure(model, tokens(1, 8))


def test_devices_and_dtypes_have_names() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    assert pick_dtype("bf16") is torch.bfloat16
    with pytest.raises(SettingsError, match="expected a dtype"):
        pick_dtype("int3")
    with pytest.raises(SettingsError, match="cannot be used"):
        pick_device("abacus")
