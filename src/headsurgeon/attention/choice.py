"""Whether a model's own forward and backward passes go through fused attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from transformers import PreTrainedModel

from headsurgeon.arch import layout_for
from headsurgeon.attention.swap import FUSED_FAMILIES, fused_attention
from headsurgeon.errors import SettingsError

AttentionChoice = Literal["auto", "stock", "fused"]
AttentionUsed = Literal["stock", "fused"]


def choose_attention(
    model: PreTrainedModel, attention: str = "auto", *, training: bool = False
) -> AttentionUsed:
    """What `attention` stands for on this model.

    Args:
        attention: `stock` is the model's own; `fused` runs BLOOM, MPT and ALiBi-Falcon without
            attention maps, equal up to rounding; `auto` is `fused` for these, save for figures in
            16 bit: there rounding is large (BLOOM's own forward rounds the bias itself), and what
            counts is the model that will run. The other families bring their own fused attention,
            which is `stock`.
        training: gradients are wanted rather than figures, and dropout will be on; attention
            dropout exists in `stock` alone.

    Raises:
        SettingsError: an unknown choice, or `fused` where it is not to be had.
    """
    if attention not in get_args(AttentionChoice):
        known = ", ".join(get_args(AttentionChoice))
        raise SettingsError(f"expected attention to be one of {known}, got {attention!r}")
    family = layout_for(model.config).family
    known_family = FUSED_FAMILIES.get(family)
    if known_family is None:
        reason = f"there is none for {family!r}"
    elif training and known_family.dropout(model.config) > 0:
        reason = "it has no attention dropout, which this model trains with"
    elif attention == "auto" and not training and in_16_bit(model):
        return "stock"
    else:
        return "stock" if attention == "stock" else "fused"
    if attention == "fused":
        raise SettingsError(f"no fused attention: {reason}; use attention 'stock' or 'auto'")
    return "stock"


def in_16_bit(model: PreTrainedModel) -> bool:
    """Whether the model's products run in bf16 or fp16, by its weights or under autocast."""
    kind = model.device.type
    under_autocast = kind != "meta" and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if under_autocast else model.dtype
    return dtype in (torch.bfloat16, torch.float16)


@contextmanager
def attending(
    model: PreTrainedModel, attention: str = "auto", *, training: bool = False
) -> Iterator[AttentionUsed]:
    """While open, `model` runs the attention that `choose_attention` names; yields which it is."""
    used = choose_attention(model, attention, training=training)
    if used == "stock":
        yield used
        return
    with fused_attention(model):
        yield used
