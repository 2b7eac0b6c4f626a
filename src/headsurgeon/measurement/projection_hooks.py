"""Listening at the projections: queries, keys, values and head outputs of each layer, by hooks.

The model computes what it always computes; the hooks only look. They are gone when the context
ends, also when it ends with an exception.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from headsurgeon.arch import Layout, Projection
from headsurgeon.attention.split_heads import shared_heads, split_heads
from headsurgeon.measurement.layer_capture import LayerCapture, output_weight


@contextmanager
def capturing(
    model: nn.Module,
    layout: Layout,
    on_layer: Callable[[int, LayerCapture], None],
    *,
    detach: bool = True,
) -> Iterator[None]:
    """While open, `on_layer(layer, capture)` is called once per layer of every forward pass.

    Unless `detach`, gradients flow through queries, keys and values of the capture.
    One layer's tensors are held at a time, so memory does not grow with the number of layers.
    """
    handles = []
    try:
        for layer in layout.attention_layers:
            projected: dict[str, Tensor] = {}
            inputs = {
                layout.query.path(layer),
                layout.key.path(layer),
                layout.value.path(layer),
            }
            for path in inputs:
                handles.append(
                    model.get_submodule(path).register_forward_hook(_keep(projected, path, detach))
                )
            output = model.get_submodule(layout.output.path(layer))
            handles.append(
                output.register_forward_hook(_report(layer, layout, projected, on_layer))
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(projected: dict[str, Tensor], path: str, detach: bool) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        projected[path] = output.detach() if detach else output

    return hook


def _report(
    layer: int,
    layout: Layout,
    projected: dict[str, Tensor],
    on_layer: Callable[[int, LayerCapture], None],
) -> Callable[..., None]:
    # after the output projection rather than before it: a patient brings its weight up to date
    # when it is called
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        def part(projection: Projection) -> Tensor:
            tensor = projected[projection.path(layer)]
            if layout.clip is not None:
                tensor = tensor.clamp(-layout.clip, layout.clip)
            return split_heads(tensor, projection, layout.head_dim)

        capture = LayerCapture(
            query=part(layout.query),
            key=shared_heads(part(layout.key), layout.heads),
            value=shared_heads(part(layout.value), layout.heads),
            context=split_heads(inputs[0].detach(), layout.output, layout.head_dim),
            output_weight=output_weight(module, layout, inputs[0].dtype),
        )
        projected.clear()
        on_layer(layer, capture)

    return hook
