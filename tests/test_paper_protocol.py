"""The paper's training protocol: slices against gradient masks over whole tensors, and in bf16."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.operation import operate
from headsurgeon.training import TrainSettings, train
from headsurgeon.training.schedule import windows_of_step
from tests.pico import pico
from tests.test_train_loop import PLAN, cut

STEPS = 20
RATE = 5e-3


def as_code(**changes: object) -> TrainSettings:
    """The settings of the released code at a larger rate, on windows of 12 tokens."""
    values: dict[str, object] = {
        "learning_rate": RATE,
        "weight_decay": 0.0,
        "clip": 1.0,
        "batch_size": 1,
        "accumulation": 8,
        "length": 12,
        "warmup": 100,
        "max_tokens": STEPS * 8 * 12,
        "first_rate": "zero",
        "evaluate_every": STEPS,
        "checkpoint_every": STEPS,
        "statistics_windows": 0,
        "dev_windows": 2,
        "keep": "last",
        "attention": "stock",
        "seed": 3,
    }
    return TrainSettings(**{**values, **changes})


def masks_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """1 where the operated heads have their values, of every tensor that has any; 0 elsewhere."""
    layout, masks = layout_of(model), {}
    for head in PLAN.operated:
        for part in ("query", "key", "value", "output"):
            for block in layout.blocks(part, head.layer, head.head):
                if part == "output" and block.parameter.endswith("bias"):
                    continue
                mask = masks.setdefault(
                    block.parameter, torch.zeros_like(model.get_parameter(block.parameter))
                )
                block.of(mask).fill_(1.0)
    return masks


def key_biases_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """1 at the operated heads' key biases: softmax does not see them, so that their gradient is
    nothing but rounding, which AdamW takes for a direction."""
    layout, found = layout_of(model), {}
    for head in PLAN.operated:
        block = layout.blocks("key", head.layer, head.head)[1]
        mask = found.setdefault(
            block.parameter, torch.zeros_like(model.get_parameter(block.parameter))
        )
        block.of(mask).fill_(1.0)
    return found


def trained_by_masks(model: PreTrainedModel, settings: TrainSettings) -> None:
    """Whole tensors in AdamW, gradients multiplied by masks: what the released code does."""
    masks = masks_of(model)
    model.requires_grad_(False)
    tensors = {name: model.get_parameter(name).requires_grad_() for name in masks}
    optimiser = torch.optim.AdamW(tensors.values(), lr=RATE, weight_decay=0.0)
    text = cut("train", 24).tokens
    warmup = min(100, STEPS // 4)
    for step in range(STEPS):
        for window in windows_of_step(step, settings, len(text)):
            ids = text[window : window + 1]
            logits = model(ids).logits[0, :-1]
            (functional.cross_entropy(logits, ids[0, 1:]) / 8).backward()
        for name, tensor in tensors.items():
            assert tensor.grad is not None
            tensor.grad *= masks[name]
        torch.nn.utils.clip_grad_norm_(tensors.values(), 1.0)
        progress = (step - warmup) / (STEPS - warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        optimiser.param_groups[0]["lr"] = RATE * (step / warmup if step < warmup else cosine)
        optimiser.step()
        optimiser.zero_grad()


def test_slices_learn_what_masked_gradients_over_whole_tensors_learn(tmp_path: Path) -> None:
    ours = operate(pico("bloom"), PLAN, seed=7)
    theirs = pico("bloom")
    start = {name: tensor.clone() for name, tensor in ours.model.state_dict().items()}
    theirs.load_state_dict(start)
    settings = as_code()
    train(ours, cut("train", 24), cut("dev", 2), output=tmp_path / "run", settings=settings)
    trained_by_masks(theirs, settings)
    ours.merge()
    now = ours.model.state_dict()
    masks = masks_of(theirs)
    moved = 0.0
    unseen = key_biases_of(theirs)
    for name, tensor in theirs.state_dict().items():
        apart = (now[name] - tensor).abs() * (1.0 - unseen.get(name, torch.tensor(0.0)))
        assert apart.max() < 1e-5, name
        moved = max(moved, float((tensor - start[name]).abs().max()))
        if name in masks:
            # without weight decay masks leave every other value as it was, too
            assert torch.equal(tensor[masks[name] == 0], start[name][masks[name] == 0])
    assert moved > 10 * RATE
    with torch.no_grad():
        apart = ours.model(cut("dev", 2).tokens).logits - theirs(cut("dev", 2).tokens).logits
    assert apart.abs().max() < 1e-4


@pytest.mark.parametrize(("rate", "least"), [(5e-5, 0.5), (1e-5, 0.8)])
def test_in_bf16_most_reinitialised_weights_never_move(
    rate: float, least: float, tmp_path: Path
) -> None:
    """What the paper's code loses: an update below half a unit in the last place is none."""
    patient = operate(pico("bloom").to(torch.bfloat16), PLAN, seed=7)
    before = {name: slice_.detach().clone() for name, slice_ in patient.named_slices().items()}
    settings = as_code(masters="bf16", compute="bf16", learning_rate=rate)
    train(patient, cut("train", 24), cut("dev", 2), output=tmp_path / "run", settings=settings)
    still, all_of_them = 0, 0
    for name, slice_ in patient.named_slices().items():
        begun = before[name].to(torch.bfloat16)
        # biases and output columns begin at zero, where every update counts
        drawn = begun != 0
        still += int((slice_.detach().to(torch.bfloat16)[drawn] == begun[drawn]).sum())
        all_of_them += int(drawn.sum())
    assert still / all_of_them > least
