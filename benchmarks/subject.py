"""What is measured: BLOOM-560m's shape and SmolLM2-135M's, random weights, a plan like pass 1."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from headsurgeon.heads import HeadId
from headsurgeon.planning import Plan, PlannedHead

HIDDEN = 1024
HEADS = 16
LAYERS = 24
VOCABULARY = 250_880
# Without the language-model head only `base_model` runs; a few embeddings are enough for that.
SMALL_VOCABULARY = 1024
# The paper's pass 1 on BLOOM: heads 9 to 15 of 16 in layers 5 to 22 of 24.
SICK_HEADS = range(9, 16)


def bloom(layers: int, head: bool) -> BloomForCausalLM:
    """A model of `layers` layers; with its 250,880-row head, or with a small one, not used."""
    config = BloomConfig(
        vocab_size=VOCABULARY if head else SMALL_VOCABULARY,
        hidden_size=HIDDEN,
        n_layer=layers,
        n_head=HEADS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    return BloomForCausalLM(config).eval()


def plan(layers: int) -> Plan:
    """7 of 16 heads in three quarters of the layers, a fifth of them left alone below."""
    first = round(layers * 5 / LAYERS)
    chosen = range(first, min(layers, first + round(layers * 18 / LAYERS)))
    heads = tuple(PlannedHead(id=HeadId(layer, head)) for layer in chosen for head in SICK_HEADS)
    return Plan(model="bloom-560m-shape", rule="heads", heads=heads)


def smollm2(layers: int) -> LlamaForCausalLM:
    """SmolLM2-135M's shape: 9 query heads that share 3 key/value heads; a small vocabulary."""
    config = LlamaConfig(
        vocab_size=SMALL_VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_theta=100_000.0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


SHAPES: dict[str, Callable[[int], PreTrainedModel]] = {
    "bloom": lambda layers: bloom(layers, head=False),
    "smollm2": smollm2,
}


def plan_of(shape: str, layers: int) -> Plan:
    """A plan for a shape: as pass 1, or two of three groups of query heads in the same layers."""
    if shape == "bloom":
        return plan(layers)
    heads = tuple(
        PlannedHead(id=HeadId(place.layer, head))
        for place in plan(layers).operated
        if place.head == SICK_HEADS.start
        for head in range(3, 9)
    )
    return Plan(model="smollm2-135m-shape", rule="heads", heads=heads)


def tokens(length: int, batch: int = 1) -> Tensor:
    """Random token ids that every model here knows, none of them special."""
    return torch.randint(10, SMALL_VOCABULARY, (batch, length))
