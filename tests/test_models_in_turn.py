"""Commands that look at several models load one after the other, and hold one at a time."""

import gc
import weakref
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import headsurgeon as hs
from headsurgeon.cli import models_in_turn
from headsurgeon.cli.options import Loading
from headsurgeon.errors import PatchError
from headsurgeon.planning import Plan, PlannedHead
from tests.clinic import CORPUS, checkpoint, run, sick_bloom, write_text

PATCH = Path("patch.safetensors")


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("sick"), sick_bloom())
    write_text(Path("docs"))
    model, _ = hs.load("sick")
    plan = Plan(model="sick", rule="heads", heads=(PlannedHead(id=hs.HeadId(1, 2)),))
    hs.operate(model, plan, seed=3).save(PATCH)
    return tmp_path


def watch_loading(module: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many models were alive each time another was loaded."""
    loaded: list[weakref.ref[Any]] = []
    alive = []
    original = module.open_model

    def watched(*given: Any) -> Any:
        gc.collect()
        alive.append(sum(model() is not None for model in loaded))
        model, tokenizer = original(*given)
        loaded.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(module, "open_model", watched)
    return alive


def test_a_model_is_gone_before_the_next_is_loaded(
    ward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = watch_loading(models_in_turn, monkeypatch)
    weights = []

    def examine(label: str, model: Any, tokenizer: Any, patches: Sequence[Path]) -> int:
        weights.append(model.transformer.h[1].self_attention.query_key_value.weight.sum().item())
        return len(patches)

    examined = models_in_turn.in_turn("sick", [PATCH], "sick", Loading(), examine)
    assert examined == {"sick": 0, "with patch.safetensors": 1, "sick (baseline)": 0}
    assert weights[0] == weights[2] != weights[1]
    assert alive == [0, 0]


def test_evaluate_holds_one_model_at_a_time_too(
    ward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = watch_loading(import_module("headsurgeon.cli.evaluate"), monkeypatch)
    reading = ("--corpus", CORPUS, "--length", "32", "--count", "8", "--split", "dev")
    said = run("evaluate", "sick", "--patch", str(PATCH), "--baseline", "sick", *reading)
    assert said.exit_code == 0, said.stderr
    assert "sick (baseline)" in said.stdout
    assert alive == [0, 0]


def test_evaluate_like_another_tool_holds_one_model_at_a_time_too(
    ward: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = watch_loading(models_in_turn, monkeypatch)
    reading = ("--corpus", CORPUS, "--length", "32", "--split", "all", "--like", "lm-eval")
    said = run("evaluate", "sick", "--patch", str(PATCH), "--baseline", "sick", *reading)
    assert said.exit_code == 0, said.stderr
    assert "with patch.safetensors" in said.stdout
    assert alive == [0, 0]


def test_a_patch_that_is_none_is_refused_before_anything_is_loaded(ward: Path) -> None:
    Path("none.safetensors").write_text("nothing")
    with pytest.raises(PatchError):
        models_in_turn.in_turn("missing", [Path("none.safetensors")], None, Loading(), print)
