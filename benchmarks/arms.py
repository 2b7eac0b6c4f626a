"""One training step, in four ways: ours, and three that a user would write today."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BloomForCausalLM, PreTrainedModel

from headsurgeon import operate
from headsurgeon.arch import layout_of
from headsurgeon.attention.choice import attending
from headsurgeon.heads import HeadId
from headsurgeon.models.token_loss import next_token_loss
from headsurgeon.planning import Plan
from headsurgeon.training.contexts import gradient_checkpointing

LEARNING_RATE = 5e-5
CLIP = 1.0
Loss = Callable[[Tensor], Tensor]


@dataclass
class Arm:
    """A way to train.

    Attributes:
        name: ours, ours-checkpointed, paper, lora or full.
        step: forward, backward, clipping and AdamW on one batch.
        trainable: number of trainable values that the method means to train.
        optimizer: AdamW over what the method gives it.
    """

    name: str
    step: Callable[[Tensor], None]
    trainable: int
    optimizer: torch.optim.Optimizer


def ours(model: PreTrainedModel, plan: Plan, head: bool, checkpointed: bool = False) -> Arm:
    """Slices, fast attention and the loss in blocks, as `headsurgeon.train` puts them together."""
    patient = operate(model, plan)
    model.train()
    slices = patient.slices()
    optimizer = torch.optim.AdamW(slices, lr=LEARNING_RATE, weight_decay=0.0)

    def loss(batch: Tensor) -> Tensor:
        if head:
            return next_token_loss(model, batch) / (batch.numel() - len(batch))
        return _headless(model, batch)

    inner = _step(loss, slices, optimizer)

    def step(batch: Tensor) -> None:
        with attending(model, training=True), gradient_checkpointing(model, checkpointed):
            inner(batch)

    name = "ours-checkpointed" if checkpointed else "ours"
    return Arm(name, step, sum(slice_.numel() for slice_ in slices), optimizer)


def paper(model: BloomForCausalLM, plan: Plan, head: bool) -> Arm:
    """The published protocol: whole tensors with gradient masks, gradient checkpointing."""
    model.requires_grad_(False)
    chosen: dict[int, list[HeadId]] = {}
    for place in plan.operated:
        chosen.setdefault(place.layer, []).append(place)
    meant = 0
    for layer, heads in chosen.items():
        attention = model.transformer.h[layer].self_attention
        width = attention.head_dim
        fused, dense = attention.query_key_value, attention.dense
        rows = torch.zeros_like(fused.bias)
        columns = torch.zeros_like(dense.weight[0])
        for place in heads:
            rows[place.head * 3 * width : (place.head + 1) * 3 * width] = 1.0
            columns[place.head * width : (place.head + 1) * width] = 1.0
        masks = {
            fused.weight: rows[:, None].expand_as(fused.weight).clone(),
            fused.bias: rows,
            dense.weight: columns[None].expand_as(dense.weight).clone(),
        }
        for parameter, mask in masks.items():
            parameter.requires_grad_(True)
            parameter.register_hook(lambda gradient, mask=mask: gradient * mask)
            meant += int(mask.sum())
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    return _plain("paper", model, head, meant)


def lora(model: PreTrainedModel, plan: Plan, head: bool) -> Arm:
    """PEFT's LoRA on the attention projections of the same layers, with as many parameters."""
    from peft import LoraConfig, get_peft_model

    names, rank = _for_as_many(model, plan)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names, task_type="CAUSAL_LM")
    get_peft_model(model, config)
    return _plain("lora", model, head)


def shira(model: PreTrainedModel, plan: Plan, head: bool) -> Arm:
    """PEFT's SHiRA on the same projections: scattered entries of the weights, as many of them."""
    from peft import ShiraConfig, get_peft_model

    names, rank = _for_as_many(model, plan)
    config = ShiraConfig(r=rank, target_modules=names, task_type="CAUSAL_LM", random_seed=0)
    get_peft_model(model, config)
    return _plain("shira", model, head)


def _for_as_many(model: PreTrainedModel, plan: Plan) -> tuple[list[str], int]:
    """Names of the attention projections of the plan's layers, and the rank for as many values."""
    layout = layout_of(model)
    layers = sorted({place.layer for place in plan.operated})
    paths = [
        path
        for layer in layers
        for path in dict.fromkeys(
            part.path(layer) for part in (layout.query, layout.key, layout.value, layout.output)
        )
    ]
    wanted = operate(model, plan)
    count = sum(slice_.numel() for slice_ in wanted.slices())
    wanted.revert()
    # a rank adds a row and a column to each
    per_rank = sum(sum(model.get_submodule(path).weight.shape) for path in paths)
    return paths, max(1, round(count / per_rank))


def full(model: BloomForCausalLM, plan: Plan, head: bool) -> Arm:
    """Every parameter trained."""
    model.requires_grad_(True)
    return _plain("full", model, head)


ARMS: dict[str, Callable[[BloomForCausalLM, Plan, bool], Arm]] = {
    "ours": ours,
    "ours-checkpointed": lambda model, plan, head: ours(model, plan, head, checkpointed=True),
    "paper": paper,
    "lora": lora,
    "full": full,
}


def _plain(name: str, model: PreTrainedModel, head: bool, meant: int | None = None) -> Arm:
    """AdamW on whatever is trainable, and the model's own loss."""
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=LEARNING_RATE, weight_decay=0.0)

    def loss(batch: Tensor) -> Tensor:
        if head:
            return model(input_ids=batch, labels=batch, use_cache=False).loss
        return _headless(model, batch)

    count = sum(parameter.numel() for parameter in trainable)
    return Arm(name, _step(loss, trainable, optimizer), meant or count, optimizer)


def _headless(model: PreTrainedModel, batch: Tensor) -> Tensor:
    """Something to go backward from where the language-model head is left out."""
    hidden: Tensor = model.base_model(input_ids=batch, use_cache=False)[0]
    return hidden.square().mean()


def _step(
    loss: Loss, trainable: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
) -> Callable[[Tensor], None]:
    def step(batch: Tensor) -> None:
        loss(batch).backward()
        nn.utils.clip_grad_norm_(trainable, CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return step
