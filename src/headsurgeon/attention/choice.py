"""Which attention a model's own forward and backward passes run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from headsurgeon.arch import layout_for
from headsurgeon.attention.fast_families import FAST_FAMILIES
from headsurgeon.attention.fast_passes import fast_attention
from headsurgeon.attention.tiled_attention import tiles_are_faster
from headsurgeon.attention_kinds import AttentionRan, check_choice
from headsurgeon.errors import SettingsError


def choose_attention(
    model: PreTrainedModel, attention: str = "auto", *, training: bool = False
) -> AttentionRan:
    """What runs on this model, under the autocast that is on now, when `attention` is asked for.

    Args:
        attention: `stock` is the model's own; `fast` runs BLOOM, MPT and ALiBi-Falcon without
            attention maps, equal up to rounding; `auto` is `fast` for these, save for figures in
            16 bit: there rounding is large (BLOOM's own forward rounds the bias itself), and what
            counts is the model that will run. The other families bring their own fast attention,
            which is `stock`.
        training: gradients are wanted rather than figures, and dropout will be on; attention
            dropout exists in `stock` alone.

    Returns:
        `stock`, `tiles` or `kernel`.

    Raises:
        SettingsError: an unknown choice, or `fast` where it is not to be had.
    """
    check_choice(attention)
    layout = layout_for(model.config)
    family = FAST_FAMILIES.get(layout.family)
    if attention == "stock":
        return "stock"
    if family is None:
        reason = f"there is none for {layout.family!r}"
    elif model.config.output_attentions:
        reason = "the model's configuration asks for attention maps (output_attentions)"
    elif training and family.dropout(model.config) > 0:
        reason = "it has no attention dropout, which this model trains with"
    elif attention == "auto" and not training and in_16_bit(model):
        return "stock"
    else:
        fast_in_tiles = tiles_are_faster(model.device, computed_dtype(model))
        return "tiles" if fast_in_tiles else "kernel"
    if attention == "fast":
        raise SettingsError(f"no fast attention: {reason}; ask for attention 'stock' or 'auto'")
    return "stock"


def computed_dtype(model: PreTrainedModel) -> torch.dtype:
    """The precision of the model's products: that of its weights, or of the autocast that is on."""
    kind = model.device.type
    under_autocast = kind != "meta" and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if under_autocast else model.dtype


def in_16_bit(model: PreTrainedModel) -> bool:
    """Whether the model's products run in bf16 or fp16."""
    return computed_dtype(model) in (torch.bfloat16, torch.float16)


@contextmanager
def attending(
    model: PreTrainedModel, attention: str = "auto", *, training: bool = False
) -> Iterator[AttentionRan]:
    """While open, `model` runs the attention that `choose_attention` names; yields which it is."""
    ran = choose_attention(model, attention, training=training)
    if ran == "stock":
        yield ran
        return
    with fast_attention(model):
        yield ran
