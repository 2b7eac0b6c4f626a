"""Single GGUF files: the model they stand for, and every way in which one can be unusable."""

import sys
from pathlib import Path

import pytest
import torch

import headsurgeon as hs
from headsurgeon.errors import MissingPackage, ModelError, SettingsError, UnsupportedModel
from headsurgeon.models.loading import load_config
from tests.pico import tokens
from tests.pico_families import pico_family

pytest.importorskip("gguf", reason="the extra `gguf` is not installed; make test installs it")

import gguf

from tests.pico_gguf import write_gguf


@pytest.fixture(scope="module")
def original() -> torch.nn.Module:
    # widths that are multiples of 32, the block of Q8_0
    return pico_family("llama", intermediate_size=64)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, original: torch.nn.Module) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "pico.gguf"
    write_gguf(path, original)
    return path


def test_a_gguf_file_gives_the_model_it_was_written_from(
    sound: Path, original: torch.nn.Module
) -> None:
    model, tokenizer = hs.load(str(sound))
    batch = tokens(2, 12)
    with torch.no_grad():
        expected = original(input_ids=batch).logits
        found = model(input_ids=batch).logits
    assert torch.allclose(found, expected, atol=1e-5)
    assert model.dtype == torch.float32
    assert not model.training
    assert model.name_or_path == str(sound)
    assert tokenizer.decode(tokenizer("the cat")["input_ids"], skip_special_tokens=True) == (
        "the cat"
    )
    assert load_config(str(sound)).model_type == "llama"


def test_a_quantised_file_is_an_ordinary_model_that_can_be_operated_on_and_saved(
    tmp_path: Path, original: torch.nn.Module
) -> None:
    path = tmp_path / "packed.gguf"
    write_gguf(path, original, quantised=True)
    model, tokenizer = hs.load(str(path), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    weight = original.get_parameter("model.layers.1.self_attn.o_proj.weight")
    read = model.get_parameter("model.layers.1.self_attn.o_proj.weight")
    error = (read.float() - weight).abs().max() / weight.abs().max()
    assert 0 < error < 0.01
    stats = hs.measure(model, tokens(4, 16))
    patient = hs.operate(model, hs.plan(hs.diagnose(stats), rule="heads", heads=["L1H2"]))
    patient.merge()
    folder = tmp_path / "saved"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    again, _ = hs.load(str(folder), dtype=torch.bfloat16)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize("part", [0.0, 0.001, 0.02, 0.2, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_refused_and_nothing_is_written(
    sound: Path, tmp_path: Path, part: float
) -> None:
    content = sound.read_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ModelError, match=r"short\.gguf: .*GGUF") as caught:
        hs.load(str(path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("seed", range(6))
def test_a_header_of_other_bytes_is_refused(sound: Path, tmp_path: Path, seed: int) -> None:
    content = bytearray(sound.read_bytes())
    noise = torch.randint(
        0, 256, (300,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    content[8 : 8 + len(noise)] = bytes(noise.tolist())
    path = tmp_path / "noise.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read as a GGUF model"):
        hs.load(str(path))


def test_another_file_with_that_suffix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("not a model", encoding="utf-8")
    with pytest.raises(ModelError, match="expected a GGUF file"):
        hs.load(str(path))


def test_a_missing_file_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        hs.load(str(tmp_path / "missing.gguf"))
    with pytest.raises(ModelError, match="no such file"):
        hs.load("someone/missing.gguf")


def test_a_file_that_lacks_a_weight_is_refused_rather_than_filled_with_noise(
    tmp_path: Path, original: torch.nn.Module
) -> None:
    path = tmp_path / "hole.gguf"
    write_gguf(path, original, without="blk.1.attn_q.weight")
    with pytest.raises(ModelError, match=r"no weights for model\.layers\.1\.self_attn\.q_proj"):
        hs.load(str(path))


def test_a_tokenizer_larger_than_the_embeddings_is_refused(
    tmp_path: Path, original: torch.nn.Module
) -> None:
    path = tmp_path / "words.gguf"
    write_gguf(path, original, tokens=120)
    with pytest.raises(ModelError, match="tokenizer"):
        hs.load(str(path))


def test_an_architecture_without_a_layout_is_refused(
    tmp_path: Path, original: torch.nn.Module
) -> None:
    path = tmp_path / "other.gguf"
    write_gguf(path, original, architecture="nemotron")
    with pytest.raises(UnsupportedModel, match="nemotron"):
        hs.load(str(path))


def test_without_the_package_the_error_says_what_to_install(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingPackage, match=r"pip install \"headsurgeon\[gguf\]\""):
        hs.load(str(sound))


def test_a_memory_limit_is_refused_for_a_gguf_file(sound: Path) -> None:
    with pytest.raises(SettingsError, match="max_memory"):
        hs.load(str(sound), max_memory={"cpu": "1MB"})


def test_a_file_is_parsed_once_and_the_package_is_left_as_it_was(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[object] = []

    class Counting(gguf.GGUFReader):
        def __init__(self, path: object) -> None:
            parsed.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Counting)
    hs.load(str(sound))
    assert len(parsed) == 1
    assert gguf.GGUFReader is Counting
    hs.load(str(sound))
    assert len(parsed) == 2
