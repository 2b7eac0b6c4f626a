"""A model's own forward and backward passes through fused attention, while a context is open.

BLOOM, MPT and ALiBi-Falcon in `transformers` hold whole attention maps or masks. Inside
`fused_attention(model)` their attention modules run in tiles (`tiled_attention.py`) or through a
fused kernel (`fold.py`) instead: the same sums up to rounding, a fraction of the time, memory
linear in the window. The modules' own projections are called, so hooks on them and layers put in
their place keep working. BLOOM's GELU, some thirty passes over the widest activations in forward
and backward, becomes PyTorch's, which is the same function in one.

A call goes the stock way, whole, where neither applies: with a cache, with padding
(a mask that has zeros) or a mask of one's own, when attention maps are asked for, when training
with attention dropout, and beyond the length the model was made for. A call that does not ask for
a cache gets none, whatever the configuration's default.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from headsurgeon.arch import Layout, layout_for
from headsurgeon.attention.fold import FoldedBias, fold_bias, folded_attention
from headsurgeon.attention.split import merge_heads, shared_heads, split_heads
from headsurgeon.attention.tiled_attention import tiled_attention, tiles_serve
from headsurgeon.errors import UnsupportedModel

# Computes one layer's attention: (layer, query, key, value) → each head's output.
Attend = Callable[
    [
        int,
        Float[Tensor, "batch head row width"],
        Float[Tensor, "batch head row width"],
        Float[Tensor, "batch head row width"],
    ],
    Float[Tensor, "batch head row width"],
]


@dataclass(frozen=True)
class FusedFamily:
    """What a family's attention module does besides attention.

    Attributes:
        dropout: the configured attention dropout.
        finish: from (module, projected output, arguments after the hidden state) to what the
            module returns first.
    """

    dropout: Callable[[PretrainedConfig], float]
    finish: Callable[[nn.Module, Tensor, tuple[Any, ...], dict[str, Any]], Tensor]


def _plain(
    module: nn.Module, output: Tensor, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Tensor:
    return output


def _bloom_residual(
    module: nn.Module, output: Tensor, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Tensor:
    # BLOOM's attention module adds the residual itself
    residual = arguments[0] if arguments else named["residual"]
    rate = float(module.hidden_dropout)  # type: ignore[arg-type]
    return torch.add(residual, functional.dropout(output, rate, module.training))


FUSED_FAMILIES: dict[str, FusedFamily] = {
    "bloom": FusedFamily(lambda config: float(config.attention_dropout), _bloom_residual),
    "falcon": FusedFamily(lambda config: float(config.attention_dropout), _plain),
    "mpt": FusedFamily(lambda config: float(config.attn_config.attn_pdrop), _plain),
}


@contextmanager
def fused_attention(model: PreTrainedModel, attend: Attend | None = None) -> Iterator[None]:
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
    family = FUSED_FAMILIES.get(layout.family)
    if family is None:
        known = ", ".join(sorted(FUSED_FAMILIES))
        raise UnsupportedModel(
            f"no fused attention for architecture {layout.family!r}; there is for {known}"
        )
    chosen = attend or _biased(layout)
    stock = model.config._attn_implementation
    before: list[tuple[nn.Module, dict[str, Any]]] = []
    # of its own, so that one context that ends takes nothing from another that is still open
    implementation = f"headsurgeon_fused_{id(before)}"
    AttentionMaskInterface.register(implementation, _no_mask)
    handles = []
    fused_layers: set[int] = set()
    try:
        for layer in range(layout.layers):
            module = model.get_submodule(layout.output.path(layer).rpartition(".")[0])
            before.append((module, {"forward": module.__dict__.get("forward")}))
            module.forward = _forward(model, module, layer, layout, family, chosen, fused_layers)
            if layout.slow_gelu is not None:
                module = model.get_submodule(layout.slow_gelu.format(layer=layer))
                before.append((module, {"forward": module.__dict__.get("forward")}))
                module.forward = _gelu(module, layer, fused_layers)

        def choose(
            base: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            if not _applies(model, layout, family, arguments, named):
                return None
            model.config._attn_implementation = implementation
            return arguments, {**named, "attention_mask": None, "use_cache": False}

        def restore(*_: Any) -> None:
            model.config._attn_implementation = stock

        base = model.base_model
        handles.append(base.register_forward_pre_hook(choose, with_kwargs=True))
        handles.append(base.register_forward_hook(restore, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.config._attn_implementation = stock
        for module, attributes in before:
            _put_back(module, attributes["forward"])
        AttentionMaskInterface._global_mapping.pop(implementation, None)


def _put_back(module: nn.Module, forward: Callable[..., Any] | None) -> None:
    if forward is None:
        module.__dict__.pop("forward", None)
    else:
        module.forward = forward


def _no_mask(*, device: torch.device, **_: Any) -> Tensor:
    """Stands for "causal, and nothing else" where a model insists on a mask: no [T, T] is built."""
    return torch.empty(0, device=device)


def _applies(
    model: PreTrainedModel,
    layout: Layout,
    family: FusedFamily,
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


def _forward(
    model: nn.Module,
    module: nn.Module,
    layer: int,
    layout: Layout,
    family: FusedFamily,
    attend: Attend,
    fused_layers: set[int],
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
            fused_layers.discard(layer)
            return stock(hidden, *arguments, **named)
        fused_layers.add(layer)
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


def _gelu(module: nn.Module, layer: int, fused_layers: set[int]) -> Callable[[Tensor], Tensor]:
    """The activation of a layer goes the way its attention has just gone."""
    stock = module.forward

    def forward(hidden: Tensor) -> Tensor:
        if layer in fused_layers:
            return functional.gelu(hidden, approximate="tanh")
        activated: Tensor = stock(hidden)
        return activated

    return forward


def _biased(layout: Layout) -> Attend:
    """Attention with the layout's bias, by whichever way is fast; made ready once per length."""
    biases: dict[tuple[int, torch.device], Tensor] = {}
    folded: dict[tuple[int, torch.device, torch.dtype], FoldedBias] = {}

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows, device, dtype = query.shape[2], query.device, query.dtype
        if (rows, device) not in biases:
            biases[rows, device] = layout.key_bias(rows, device)
        bias = biases[rows, device]
        if tiles_serve(query):
            return tiled_attention(query, key, value, bias, layout.scale)
        if (rows, device, dtype) not in folded:
            folded[rows, device, dtype] = fold_bias(bias, layout.scale, dtype)
        return folded_attention(query, key, value, folded[rows, device, dtype], layout.scale)

    return attend
