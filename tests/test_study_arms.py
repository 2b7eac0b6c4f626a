"""Claims about the ready arms: what each does to which weights, and that each can win."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.diagnosis import diagnose
from headsurgeon.errors import StudyError
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.models import load
from headsurgeon.models.fingerprint import attention
from headsurgeon.planning.planning import plan
from headsurgeon.study import PRESETS, READY, Study, load_results, run_study
from headsurgeon.study.heads import heads_of
from headsurgeon.study.material import dev_windows
from headsurgeon.study.results import CELL
from headsurgeon.study.start import check_starts, start_arm
from headsurgeon.study.variants import variants_of
from tests.planted import PLANTED
from tests.studies import pico_study, with_arms

TRAIN = {"max_tokens": 3072, "evaluate_every": 8, "checkpoint_every": 16, "learning_rate": 1e-2}
# what a ready arm does not say by itself
FIELDS: Mapping[str, dict[str, Any]] = {"column": {"column": 0}, "anchor": {"anchor": "prose"}}
QKVO = {"query", "key", "value", "output"}
STARTS: Mapping[str, set[str]] = {
    "untrained": QKVO,
    "paper": QKVO,
    "recommended": QKVO,
    "qkv_only": {"query", "key", "value"},
    "random_output": QKVO,
    "carry": QKVO,
    "qk_only": {"query", "key"},
    "vo_only": {"value", "output"},
    "partial_reset": QKVO,
    "unpin": {"key"},
    "gradient_matched": QKVO,
    "induction": QKVO,
    "induction_gradient_matched": QKVO,
    "canonical": QKVO,
    "muon": QKVO,
    "rates": QKVO,
    "reinit_balance": QKVO,
    "anchor": QKVO,
    "matched_healthy": QKVO,
    "random_heads": QKVO,
    "column": QKVO,
    "bf16_masters": QKVO,
    "paper_then_full": QKVO,
    "canonical_then_full": QKVO,
    # these begin with the weights that are there
    "gradient_only": set(),
    "ceiling": set(),
    "balance": set(),
    "lora": set(),
    "full": set(),
}
# of these output columns are not zero at the start
OUTPUT_KEPT = {"qkv_only", "random_output", "qk_only", "unpin"}
TRAINED = [
    name
    for name, fields in READY.items()
    if fields.get("method") not in ("none", "ablate") and fields.get("trained", True)
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    whole = pico_study(tmp_path_factory.mktemp("models"))
    arms = tuple({"name": name, **FIELDS.get(name, {})} for name in READY)
    return with_arms(whole, *arms, train={**whole.train, **TRAIN})


def state_of(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def test_the_table_knows_every_arm_that_starts_anything() -> None:
    assert set(STARTS) == {
        name for name, fields in READY.items() if fields.get("method") not in ("none", "ablate")
    }


@pytest.mark.parametrize("name", STARTS)
def test_an_arm_starts_its_own_parts_of_its_own_heads_and_leaves_the_rest(
    name: str, study: Study
) -> None:
    arm = study.arm(name)
    model, tokenizer = load(study.model if arm.model == "subject" else str(study.twin))
    dev = dev_windows(study, "code", tokenizer, 8)
    diagnosis = diagnose(measure(model, dev))
    made = plan(diagnosis, "heads", heads=list(PLANTED), model=model)
    heads = heads_of(arm, made, [diagnosis], seed=0)
    stock, layout = state_of(model), layout_of(model)
    learner = start_arm(arm, model, made, heads, 0, dev if arm.calibration else None, study)
    learner.merge()
    now = state_of(model)
    elsewhere = stock.keys() - set(attention(model, layout))
    assert now.keys() == stock.keys()
    assert all(torch.equal(now[key], stock[key]) for key in elsewhere)

    def moved(head: HeadId, part: str) -> bool:
        return any(
            not torch.equal(block.of(now[block.parameter]), block.of(stock[block.parameter]))
            for block in layout.blocks(part, head.layer, head.head)
        )

    for layer in range(layout.layers):
        for index in range(layout.heads):
            head = HeadId(layer, index)
            seen = {part for part in QKVO if moved(head, part)}
            assert seen == (STARTS[name] if head in heads else set()), head
    if "output" in STARTS[name]:
        columns = [
            block.of(now[block.parameter])
            for head in heads
            for block in layout.blocks("output", head.layer, head.head)
        ]
        assert all(bool((each == 0).all()) for each in columns) == (name not in OUTPUT_KEPT)


@pytest.fixture(scope="module")
def losses(study: Study, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Test loss on the text trained on, nats per token, by arm."""
    folder = tmp_path_factory.mktemp("studies") / "every"
    arms = tuple(
        arm.model_copy(update={"train": {**arm.train, "learning_rate": RATES[arm.name]}})
        if arm.name in RATES
        else arm
        for arm in study.arms
    )
    run_study(study.model_copy(update={"arms": arms}), folder)
    results = load_results(folder)
    assert {cell.arm: cell.failure for cell in results.failed} == {}
    assert all((folder / "cells" / str(cell.cell) / CELL).exists() for cell in results.cells)
    return {
        cell.arm: sum(cell.scored["code"].nll) / sum(cell.scored["code"].tokens)
        for cell in results.cells
    }


# a whole model takes smaller steps
RATES = dict.fromkeys(("full", "paper_then_full", "canonical_then_full"), 0.002)


def test_every_ready_arm_runs(losses: dict[str, float]) -> None:
    assert set(losses) == set(READY)


@pytest.mark.parametrize("name", TRAINED)
def test_an_arm_that_is_trained_beats_heads_that_are_not(
    name: str, losses: dict[str, float]
) -> None:
    assert losses[name] < losses["untrained"] - 0.05


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"method": "full", "init": "canonical", "calibration": 4},
            "begins with the model as it is",
        ),
        ({"method": "lora", "output_start": "random_output"}, "would not be used"),
        ({"method": "ablate", "calibration": 4}, "leave them out"),
        ({"calibration": 4}, "looks at no text"),
        ({"init": "canonical"}, "give calibration, such as 32"),
        ({"init": "kanonical"}, "kanonical"),
        ({"train": {"heads_rate": 4.0}}, "give it to those alone"),
        ({"method": "lora", "train": {"heads_rate": 4.0}}, "arms that train the whole model"),
    ],
)
def test_a_start_that_nothing_comes_of_is_refused_before_anything_runs(
    fields: dict[str, Any], words: str
) -> None:
    study = with_arms(Study.load("twins"), {"name": "odd", **fields})
    with pytest.raises(StudyError, match=words):
        check_starts(study)


def test_every_preset_carries_out_the_starts_it_names() -> None:
    for name in PRESETS:
        if variants_of(name):
            # whose texts are the user's to name
            continue
        check_starts(Study.load(name))
