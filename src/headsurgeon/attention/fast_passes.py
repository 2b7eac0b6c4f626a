"""A model's own forward and backward passes through fast attention, while a context is open.

BLOOM, MPT and ALiBi-Falcon in `transformers` hold whole attention maps or masks. Inside
`fast_attention(model)` their attention modules run in tiles (`tiled_attention.py`) or through a
fused kernel (`kernel_attention.py`) instead: the same sums up to rounding, a fraction of the time,
memory linear in the window.

A call goes the stock way, whole, where neither applies: with a cache, with padding
(a mask that has zeros) or a mask of one's own, when attention maps are asked for, when training
with attention dropout, and beyond the length the model was made for. A call that does not ask for
a cache gets none, whatever the configuration's default.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from headsurgeon.arch import Layout, layout_for
from headsurgeon.attention.biased_attention import Attend, biased_attention
from headsurgeon.attention.fast_families import FAST_FAMILIES, FastFamily
from headsurgeon.attention.fast_modules import fast_modules
from headsurgeon.errors import UnsupportedModel


@contextmanager
def fast_attention(model: PreTrainedModel, attend: Attend | None = None) -> Iterator[None]:
    """While open, `model` runs its attention without maps; afterwards it is as before.

    Logits agree with the stock forward to 1e-5 in fp32; in bf16 they are nearer to fp32 than the
    stock forward's, which rounds the bias. Gradients flow, so training can run inside.

    Args:
        model: a BLOOM, MPT or ALiBi-Falcon model.
        attend: computes a layer's attention instead; for measuring.

    Raises:
        UnsupportedModel: another family.
    """
    layout = layout_for(model.config)
    family = FAST_FAMILIES.get(layout.family)
    if family is None:
        known = ", ".join(sorted(FAST_FAMILIES))
        raise UnsupportedModel(
            f"no fast attention for architecture {layout.family!r}; there is for {known}"
        )
    stock = model.config._attn_implementation
    handles: list[RemovableHandle] = []
    # of its own, so that one context that ends takes nothing from another that is still open
    implementation = f"headsurgeon_fast_{id(handles)}"
    AttentionMaskInterface.register(implementation, _no_mask)

    def choose(
        base: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not _applies(model, layout, family, arguments, named):
            return None
        model.config._attn_implementation = implementation
        return arguments, {**named, "attention_mask": None, "use_cache": False}

    def restore(*_: Any) -> None:
        model.config._attn_implementation = stock

    try:
        with fast_modules(model, layout, family, attend or biased_attention(layout)):
            base = model.base_model
            handles.append(base.register_forward_pre_hook(choose, with_kwargs=True))
            handles.append(base.register_forward_hook(restore, always_call=True))
            yield
    finally:
        for handle in handles:
            handle.remove()
        model.config._attn_implementation = stock
        AttentionMaskInterface._global_mapping.pop(implementation, None)


def _no_mask(*, device: torch.device, **_: Any) -> Tensor:
    """Stands for "causal, and nothing else" where a model insists on a mask: no [T, T] is built."""
    return torch.empty(0, device=device)


def _applies(
    model: PreTrainedModel,
    layout: Layout,
    family: FastFamily,
    arguments: tuple[Any, ...],
    named: dict[str, Any],
) -> bool:
    """Whether a call of the base model is plain causal attention over whole windows."""
    inputs = [*arguments[:1], named.get("input_ids"), named.get("inputs_embeds")]
    length = next((tensor.shape[1] for tensor in inputs if tensor is not None), None)
    mask = named.get("attention_mask")
    padded = mask is not None and (mask.ndim != 2 or not bool(mask.all()))
    maps = named.get("output_attentions")
    return not (
        length is None
        or len(arguments) > 1
        or padded
        or named.get("use_cache")
        or named.get("past_key_values") is not None
        or (model.config.output_attentions if maps is None else maps)
        or (model.training and family.dropout(model.config) > 0)
        or (layout.max_length is not None and length > layout.max_length)
    )
