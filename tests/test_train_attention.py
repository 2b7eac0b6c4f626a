"""Training and evaluating through fast attention: the same figures, and who gets it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headsurgeon.attention import biased_attention
from headsurgeon.attention.choice import choose_attention
from headsurgeon.errors import Interrupted, OutputError, SettingsError
from headsurgeon.evaluation import evaluate
from headsurgeon.measurement import measure
from headsurgeon.operation import operate
from headsurgeon.operation.tensor_file import read_tensors
from headsurgeon.training import StepEvent, TrainSettings, read_log
from tests.pico import pico
from tests.pico import tokens as random_tokens
from tests.pico_families import pico_family
from tests.stand_ins import windows_of
from tests.test_train_loop import PLAN, STEPS, patient, run

ALIBI = ["bloom", "mpt", "falcon-rw", "falcon-new"]
DRY = {"bloom": {"hidden_dropout": 0.1}}


def slices_of(folder: Path) -> dict[str, torch.Tensor]:
    tensors, _ = read_tensors(folder / "checkpoint" / "last.safetensors", "checkpoint", OutputError)
    return tensors


def used(folder: Path) -> str:
    return str(json.loads((folder / "run.json").read_text())["identity"]["attention"])


@pytest.mark.parametrize("family", ALIBI)
def test_fast_training_follows_the_stock_one(family: str, tmp_path: Path) -> None:
    results = {}
    for attention in ("stock", "auto"):
        over = {"hidden_dropout": 0.0} if family == "bloom" else {}
        folder = tmp_path / attention
        # a small rate: AdamW's first steps have unit size, which magnifies any rounding
        found = run(patient(family, **over), folder, attention=attention, learning_rate=1e-4)
        results[attention] = [loss for _, loss in read_log(found)]
    assert used(tmp_path / "stock") == "stock"
    assert used(tmp_path / "auto") == "tiles"
    assert results["auto"] == pytest.approx(results["stock"], abs=1e-5)


def test_a_fast_run_stopped_and_resumed_ends_bit_identical(tmp_path: Path) -> None:
    def stop(event: StepEvent) -> None:
        if event.step == 3:
            raise KeyboardInterrupt

    # dropout of the residual stream, which fast attention leaves alone
    run(patient("bloom", **DRY["bloom"]), tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(patient("bloom", **DRY["bloom"]), tmp_path / "cut", on_step=stop)
    run(patient("bloom", **DRY["bloom"]), tmp_path / "cut")
    assert used(tmp_path / "cut") == "tiles"
    whole, resumed = slices_of(tmp_path / "whole"), slices_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_checkpointing_under_fast_attention_computes_again_only_from_the_lowest_operated_layer(
    tmp_path: Path,
) -> None:
    calls: dict[str, list[int]] = {}
    ends = {}
    for checkpointing in (False, True):
        subject = patient("bloom", **DRY["bloom"])
        counts = [0, 0, 0]
        for layer, block in enumerate(subject.model.transformer.h):

            def note(*_: object, layer: int = layer, counts: list[int] = counts) -> None:
                counts[layer] += torch.is_grad_enabled()

            # at the entrance: the second time, a layer stops once nothing more is needed of it
            block.input_layernorm.register_forward_pre_hook(note)
        folder = tmp_path / str(checkpointing)
        run(subject, folder, gradient_checkpointing=checkpointing)
        calls[str(checkpointing)] = counts
        ends[checkpointing] = slices_of(folder)
    batches = STEPS * 2
    assert calls["False"] == [batches] * 3
    # the plan's lowest layer is 1: layer 0 runs once
    assert calls["True"] == [batches, 2 * batches, 2 * batches]
    assert all(torch.equal(ends[True][name], ends[False][name]) for name in ends[True])


@pytest.mark.parametrize("family", ALIBI)
def test_evaluation_is_the_same_through_tiles(family: str) -> None:
    model = pico(family)
    windows = windows_of(random_tokens(5, 12), documents="aabbc")
    found = evaluate(model, windows)
    stock = evaluate(model, windows, attention="stock")
    assert (found.attention, stock.attention) == ("tiles", "stock")
    assert found.nll == pytest.approx(stock.nll, abs=1e-5)
    assert found.model_dump()["attention"] == "tiles"


def test_attention_dropout_trains_with_the_stock_attention_and_says_why() -> None:
    model = pico("bloom", attention_dropout=0.1)
    assert choose_attention(model, "auto", training=True) == "stock"
    assert choose_attention(model, "auto") == "tiles"
    with pytest.raises(SettingsError, match="attention dropout"):
        choose_attention(model, "fast", training=True)


def test_families_with_a_fast_attention_of_their_own_keep_it() -> None:
    model = pico_family("llama")
    assert choose_attention(model) == "stock"
    with pytest.raises(SettingsError, match="none for 'llama'"):
        choose_attention(model, "fast")


def test_an_unknown_attention_is_refused() -> None:
    with pytest.raises(SettingsError, match="auto, stock, fast"):
        choose_attention(pico("bloom"), "flash")


def test_fused_is_told_its_new_name() -> None:
    with pytest.raises(SettingsError, match="'fused' is now called 'fast'"):
        choose_attention(pico("bloom"), "fused")
    with pytest.raises(SettingsError, match="called 'fused' is now called 'fast'"):
        TrainSettings(max_tokens=1, attention="fused")


def test_what_is_said_to_run_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: set[str] = set()
    for name, way in (("tiled_attention", "tiles"), ("kernel_attention", "kernel")):
        original = getattr(biased_attention, name)

        def noted(*given: Any, way: str = way, original: Any = original) -> torch.Tensor:
            ran.add(way)
            return original(*given)

        monkeypatch.setattr(biased_attention, name, noted)
    ids = random_tokens(2, 12)
    for model in (pico("bloom"), pico("mpt").bfloat16(), pico("falcon-rw").double()):
        for autocast in (False, True):
            ran.clear()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                said = evaluate(model, ids, attention="fast").attention
            assert ran == {said}
    asks_for_maps = pico("bloom", attn_implementation="eager", output_attentions=True)
    assert evaluate(asks_for_maps, ids).attention == "stock"
    assert measure(asks_for_maps, ids).provenance.attention == "blocks"
    with pytest.raises(SettingsError, match="output_attentions"):
        evaluate(asks_for_maps, ids, attention="fast")


def test_a_run_of_an_earlier_version_that_says_fused_is_resumed(tmp_path: Path) -> None:
    run(patient("mpt"), tmp_path, attention="fast")
    file = tmp_path / "run.json"
    content = json.loads(file.read_text())
    assert content["identity"]["attention"] == "tiles"
    content["identity"]["attention"] = content["identity"]["settings"]["attention"] = "fused"
    file.write_text(json.dumps(content))
    run(patient("mpt"), tmp_path, attention="fast")
    with pytest.raises(OutputError, match="attention: the run there has 'fast', this one 'stock'"):
        run(patient("mpt"), tmp_path, attention="stock")


def test_the_context_is_gone_after_training(tmp_path: Path) -> None:
    subject = operate(pico("bloom"), PLAN)
    run(subject, tmp_path / "run")
    module = subject.model.transformer.h[0].self_attention
    assert "forward" not in module.__dict__
