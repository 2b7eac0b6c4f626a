"""Listening at the attention interface: queries and keys after norms and rotation, and the mask.

`transformers` calls attention by a name in the configuration. While the context is open, that name
is one under which a function stands that notes what it is given and then calls the very function
that would have run. The same name gets the stock function for masks: a name unknown there gets no
mask at all, without a word.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from headsurgeon.arch import Layout
from headsurgeon.attention.split_heads import shared_heads, split_heads
from headsurgeon.attention_kinds import STOCK
from headsurgeon.errors import ModelError, SettingsError
from headsurgeon.measurement.layer_capture import LayerCapture, ScoreTerms, output_weight

Call = tuple[Tensor, Tensor, Tensor, ScoreTerms]


@contextmanager
def listening(
    model: PreTrainedModel,
    layout: Layout,
    on_layer: Callable[[int, LayerCapture], None],
    *,
    detach: bool = True,
) -> Iterator[None]:
    """While open, `on_layer(layer, capture)` is called once per layer of every forward pass.

    Unless `detach`, gradients flow through queries, keys and values of the capture.
    The model computes exactly what it would have; afterwards, also after an exception, its
    configurations, hooks and `transformers`' registries are what they were.

    Raises:
        SettingsError: the model was loaded with another attention than eager or sdpa.
        ModelError: in a forward pass, a mask that hides or shows other positions than the layout
            says; padded windows cannot be measured.
    """
    stock = model.config._attn_implementation
    if stock not in STOCK:
        raise SettingsError(
            f"cannot listen to attention {stock!r}; expected {' or '.join(STOCK)}: "
            f"model.set_attn_implementation({STOCK[-1]!r}), or load it with headsurgeon.load"
        )
    heard: list[Call] = []
    name = f"headsurgeon_listening_{id(heard)}"
    handles = []
    configs = _configs(model)
    before = [config._attn_implementation_internal for config in configs]
    AttentionInterface.register(name, _noting(heard, stock, detach))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[stock])
    try:
        for layer in layout.attention_layers:
            output = model.get_submodule(layout.output.path(layer))
            hook = _report(layer, layout, heard, on_layer)
            handles.append(output.register_forward_hook(hook))
        for config in configs:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation_internal = implementation
        for handle in handles:
            handle.remove()
        AttentionInterface._global_mapping.pop(name, None)
        AttentionMaskInterface._global_mapping.pop(name, None)


def _configs(model: PreTrainedModel) -> list[PretrainedConfig]:
    """Every configuration that a module of the model reads, each once."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return list({id(c): c for c in configs if isinstance(c, PretrainedConfig)}.values())


def _noting(
    heard: list[Call], stock: str, detach: bool
) -> Callable[..., tuple[Tensor, Tensor | None]]:
    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **named: Any,
    ) -> tuple[Tensor, Tensor | None]:
        scale = named.get("scaling")
        terms = ScoreTerms(
            scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
            mask=attention_mask,
            softcap=named.get("softcap"),
            sinks=named.get("s_aux"),
        )
        if detach:
            heard.append((query.detach(), key.detach(), value.detach(), terms))
        else:
            heard.append((query, key, value, terms))
        function = _stock_function(module, stock)
        result: tuple[Tensor, Tensor | None] = function(
            module, query, key, value, attention_mask, **named
        )
        return result

    return attend


def _stock_function(module: nn.Module, stock: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    # eager attention is not registered: each family's file has its own, under one name
    if stock == "eager":
        family = sys.modules[type(module).__module__]
        function: Callable[..., Any] = family.eager_attention_forward
        return function
    registered: Callable[..., Any] = AttentionInterface._global_mapping[stock]
    return registered


def _report(
    layer: int,
    layout: Layout,
    heard: list[Call],
    on_layer: Callable[[int, LayerCapture], None],
) -> Callable[..., None]:
    # after the output projection, where a patient has brought its weight up to date
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        query, key, value, terms = heard.pop()
        _check_mask(layer, layout, terms.mask, query.shape[2])
        on_layer(
            layer,
            LayerCapture(
                query=query,
                key=shared_heads(key, layout.heads),
                value=shared_heads(value, layout.heads),
                context=split_heads(inputs[0].detach(), layout.output, layout.head_dim),
                output_weight=output_weight(module, layout, inputs[0].dtype),
                score_terms=terms,
            ),
        )

    return hook


def _check_mask(layer: int, layout: Layout, mask: Tensor | None, rows: int) -> None:
    if mask is None:
        seen_as_described = (layout.window(layer) or rows) >= rows
    else:
        positions = torch.arange(rows, device=mask.device)
        distance = positions[:, None] - positions
        described = (distance >= 0) & (distance < (layout.window(layer) or rows))
        seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        seen_as_described = bool((seen == described).all())
    if not seen_as_described:
        raise ModelError(
            f"the model masks layer {layer} otherwise than causally with a window of "
            f"{layout.window(layer)}; expected whole windows without padding"
        )
