"""Loading by name: folders, the Hub, and every way in which it can fail."""

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

import headsurgeon as hs
from headsurgeon.errors import (
    HeadsurgeonWarning,
    ModelError,
    NetworkError,
    SettingsError,
    UnsupportedModel,
)
from headsurgeon.models.device import pick_device, pick_dtype
from tests.char_tokenizer import char_tokenizer
from tests.clinic import checkpoint
from tests.pico import pico, tokens
from tests.pico_families import pico_family, pico_gemma3_with_images


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


def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ModelError, match=r"expected a checkpoint folder, a \.gguf file"):
        hs.load(str(tmp_path / "model.safetensors"))


def test_an_unknown_zoo_name_lists_what_there_is() -> None:
    with pytest.raises(ModelError, match="zoo:bloom-mini-collapsed"):
        hs.load("zoo:bloom-maxi")


def test_a_hub_id_without_a_network_says_so() -> None:
    with pytest.raises(NetworkError, match="cannot be reached"):
        hs.load("headsurgeon-tests/not-in-any-cache")


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "model.bin"])
def test_weights_in_pickle_are_not_read(tmp_path: Path, weights: str) -> None:
    pico("bloom").save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / weights)
    with pytest.raises(ModelError, match="safetensors"):
        hs.load(str(tmp_path))


def test_code_that_comes_with_a_checkpoint_runs_only_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "with-code"
    pico("bloom").save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "never-heard-of", "auto_map": {"AutoConfig": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import PretrainedConfig\n"
        f"Path({str(ran)!r}).touch()\n"
        "class Own(PretrainedConfig):\n"
        "    model_type = 'never-heard-of'\n",
        encoding="utf-8",
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    with pytest.raises(ModelError, match=r"code of its own.*trust_remote_code=True"):
        hs.load(str(folder))
    assert not ran.exists()
    with pytest.raises(UnsupportedModel, match="never-heard-of"):
        hs.load(str(folder), trust_remote_code=True)
    assert ran.exists()


def test_a_checkpoint_that_lacks_a_weight_is_refused_rather_than_filled_with_noise(
    tmp_path: Path,
) -> None:
    model = pico("bloom")
    name = "transformer.h.1.self_attention.dense.weight"
    state = {key: value for key, value in model.state_dict().items() if key != name}
    model.save_pretrained(tmp_path, state_dict=state)
    char_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no weights for transformer\.h\.1\..*dense\.weight"):
        hs.load(str(tmp_path))


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tmp_path: Path) -> None:
    model = pico("bloom")
    model.resize_token_embeddings(50)
    model.save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"97 tokens.*50 embeddings.*another model"):
        hs.load(str(tmp_path))


def test_tokens_added_beyond_the_embeddings_are_no_reason_to_refuse(tmp_path: Path) -> None:
    pico("bloom").save_pretrained(tmp_path)
    tokenizer = char_tokenizer()
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    _, loaded = hs.load(str(tmp_path))
    assert len(loaded) == 98


def test_the_revision_reaches_the_configuration_the_weights_and_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both revisions lie in a cache as the Hub's client keeps it."""
    cached = tmp_path / "models--someone--pico"
    for number, (revision, seed) in enumerate({"main": 0, "older": 1}.items()):
        commit = str(number) * 40
        (cached / "refs").mkdir(parents=True, exist_ok=True)
        (cached / "refs" / revision).write_text(commit, encoding="utf-8")
        snapshot = cached / "snapshots" / commit
        pico("bloom", seed=seed).save_pretrained(snapshot)
        tokenizer = char_tokenizer()
        tokenizer.add_tokens([f"<{revision}>"])
        tokenizer.save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision, seed in (("main", 0), ("older", 1)):
        model, loaded = hs.load("someone/pico", revision=revision)
        expected = pico("bloom", seed=seed).get_input_embeddings().weight
        assert torch.equal(model.get_input_embeddings().weight, expected)
        assert f"<{revision}>" in loaded.get_vocab()
    with pytest.raises((ModelError, NetworkError)):
        hs.load("someone/pico", revision="never")


def test_a_model_that_also_reads_images_is_loaded_diagnosed_and_operated_on(tmp_path: Path) -> None:
    pico_gemma3_with_images().save_pretrained(tmp_path)
    char_tokenizer().save_pretrained(tmp_path)
    model, _ = hs.load(str(tmp_path))
    batch = tokens(3, 16)
    chosen = {"rule": "heads", "heads": ["L1H0", "L1H1"]}
    plan = hs.plan(hs.diagnose(hs.measure(model, batch)), model=model, **chosen)
    patient = hs.operate(model, plan)
    own = model(batch, labels=batch).loss.item()
    assert hs.evaluate(model, batch).nll == pytest.approx(own, rel=1e-5)
    patient.revert()


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


KERNELS = ("flex_attention", "flash_attention_2", "flash_attention_3", "paged|eager", "no such", "")


@pytest.mark.parametrize("family", ["bloom", "llama"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_attention_kernel_that_a_configuration_names_is_not_needed(
    tmp_path: Path, kernel: str, family: str
) -> None:
    model = pico("bloom") if family == "bloom" else pico_family(family)
    checkpoint(tmp_path, model)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"_attn_implementation": kernel}))
    with pytest.warns(HeadsurgeonWarning, match="asks for attention"):
        loaded, _ = hs.load(tmp_path)
    assert hs.evaluate(loaded, tokens()).nll == pytest.approx(hs.evaluate(model, tokens()).nll)
    assert hs.measure(loaded, tokens()).first_token_mass == pytest.approx(
        hs.measure(model, tokens()).first_token_mass
    )


def test_a_servers_attention_is_refused_before_it_looks_ahead() -> None:
    model = pico("bloom")
    model.config._attn_implementation = "paged|eager"
    for function in (hs.measure, hs.evaluate):
        with pytest.raises(UnsupportedModel, match="set_attn_implementation"):
            function(model, tokens())
