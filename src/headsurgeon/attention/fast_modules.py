"""Forwards that take the place of those of a model's attention and activation modules.

The modules' own projections are called, so hooks on them and layers put in their place keep
working. BLOOM's GELU, some thirty passes over the widest activations in forward and backward,
becomes PyTorch's, which is the same function in one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from headsurgeon.arch import Layout
from headsurgeon.attention.biased_attention import Attend
from headsurgeon.attention.fast_families import FastFamily
from headsurgeon.attention.split_heads import merge_heads, shared_heads, split_heads


@contextmanager
def fast_modules(
    model: nn.Module, layout: Layout, family: FastFamily, attend: Attend
) -> Iterator[None]:
    """While open, attention modules that get an empty mask compute `attend`; others run as stock.

    A module that had a forward of its own (Accelerate puts one there) has it back afterwards.
    """
    before: list[tuple[nn.Module, Callable[..., Any] | None]] = []
    fast_layers: set[int] = set()

    def replace(module: nn.Module, forward: Callable[..., Any]) -> None:
        before.append((module, module.__dict__.get("forward")))
        module.forward = forward

    try:
        for layer in range(layout.layers):
            module = model.get_submodule(layout.output.path(layer).rpartition(".")[0])
            replace(module, _forward(model, module, layer, layout, family, attend, fast_layers))
            if layout.slow_gelu is not None:
                module = model.get_submodule(layout.slow_gelu.format(layer=layer))
                replace(module, _gelu(module, layer, fast_layers))
        yield
    finally:
        for module, forward in before:
            _put_back(module, forward)


def _put_back(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        module.__dict__.pop("forward", None)
    else:
        module.forward = forward


def _forward(
    model: nn.Module,
    module: nn.Module,
    layer: int,
    layout: Layout,
    family: FastFamily,
    attend: Attend,
    fast_layers: set[int],
) -> Callable[..., tuple[Tensor, None]]:
    stock = module.forward
    query_path, key_path, value_path = (
        layout.query.path(layer),
        layout.key.path(layer),
        layout.value.path(layer),
    )

    def forward(hidden: Tensor, *arguments: Any, **named: Any) -> Any:
        # the mask travels with the call, so a checkpointed layer decides the same in backward
        mask = named.get("attention_mask")
        if mask is None or mask.numel() > 0:
            fast_layers.discard(layer)
            return stock(hidden, *arguments, **named)
        fast_layers.add(layer)
        # looked up at every call, because operated layers take the place of these modules
        projected = {
            path: model.get_submodule(path)(hidden)
            for path in dict.fromkeys((query_path, key_path, value_path))
        }
        if layout.clip is not None:
            projected = {p: t.clamp(-layout.clip, layout.clip) for p, t in projected.items()}
        width = layout.head_dim
        query = split_heads(projected[query_path], layout.query, width)
        key = split_heads(projected[key_path], layout.key, width)
        value = split_heads(projected[value_path], layout.value, width)
        context = attend(
            layer, query, shared_heads(key, layout.heads), shared_heads(value, layout.heads)
        )
        output = model.get_submodule(layout.output.path(layer))(merge_heads(context, layout.output))
        return family.finish(module, output, arguments, named), None

    return forward


def _gelu(module: nn.Module, layer: int, fast_layers: set[int]) -> Callable[[Tensor], Tensor]:
    """The activation of a layer goes the way its attention has just gone."""
    stock = module.forward

    def forward(hidden: Tensor) -> Tensor:
        if layer in fast_layers:
            return functional.gelu(hidden, approximate="tanh")
        activated: Tensor = stock(hidden)
        return activated

    return forward
