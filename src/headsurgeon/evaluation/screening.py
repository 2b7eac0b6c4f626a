"""Screening: what ablating each head would cost, for all heads at once, from gradients.

With a the output of a head before the projection and g the gradient of a window's loss there, both
of one token, removing the head changes the loss by −Σ a·g to first order. To second order the
curvature adds ½ Σ (a·g)²: at a minimum the second derivative of a log-likelihood is, on average,
the square of the first (Fisher), taken here from the tokens of the text, each by itself. Under
`mean` ablation a − mean a stands in place of a; all of it comes from the same pass. (First order:
Molchanov et al. 2017, Michel et al. 2019; squared: Theis et al. 2018.)

One such pass costs what some three forward passes do, whatever the number of heads, where ablating
them one by one takes a forward pass each. It stays an estimate.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.attention.choice import attending
from headsurgeon.attention.split_heads import split_heads
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data import Windows
from headsurgeon.errors import ModelError
from headsurgeon.evaluation.block_forwards import replaced
from headsurgeon.models.forward import OnWindows, batches, evaluating, model_id
from headsurgeon.models.token_loss import next_token_loss
from headsurgeon.models.weights import quantised

# to the loss, back, and once more to compute again what was not kept
SCREENING_PASSES = 3

# gradients flow through these by intention: they are what QLoRA and LLM.int8 fine-tuning rest on
_DIFFERENTIABLE = ("Params4bit", "Int8Params")


@dataclass(frozen=True, eq=False)
class Screening:
    """What one pass over some windows says of every head; NaN where a layer was left out.

    Attributes:
        first_order: −Σ a·g, nats per token.
        squared: Σ (a·g)², nats per token.
        first_order_mean, squared_mean: the same with a − mean a in place of a.
        output_norm: mean length of a.
    """

    first_order: Float[np.ndarray, "layer head"]
    squared: Float[np.ndarray, "layer head"]
    first_order_mean: Float[np.ndarray, "layer head"]
    squared_mean: Float[np.ndarray, "layer head"]
    output_norm: Float[np.ndarray, "layer head"]

    def costs(self, mode: str) -> Float[np.ndarray, "layer head"]:
        """What ablating each head alone costs to second order, nats per token."""
        if mode == "mean":
            return self.first_order_mean + self.squared_mean / 2.0
        return self.first_order + self.squared / 2.0


def why_not_screened(model: nn.Module) -> str | None:
    """Why no gradient can flow through a model, in words; None where it can."""
    packed = quantised(model)
    if packed is None:
        return None
    kind = type(model.get_parameter(packed)).__name__
    return None if kind in _DIFFERENTIABLE else f"no gradient flows through {kind} weights"


class _Sums:
    """Sums over tokens of one layer, per head."""

    def __init__(self, heads: int, width: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(heads, *shape, dtype=torch.float64, device=device)

        self.tokens = 0
        self.products, self.squares, self.norms = zeros(), zeros(), zeros()
        self.outputs, self.gradients = zeros(width), zeros(width)
        self.weighted, self.outer = zeros(width), zeros(width, width)

    def add(
        self,
        output: Float[Tensor, "batch head row width"],
        gradient: Float[Tensor, "batch head row width"],
    ) -> None:
        """Adds the tokens of one batch."""
        a, g = (part.transpose(0, 1).flatten(1, 2).float() for part in (output, gradient))
        product = (a * g).sum(-1)
        self.tokens += a.shape[1]
        self.products += product.sum(1)
        self.squares += product.square().sum(1)
        self.norms += a.norm(dim=-1).sum(1)
        self.outputs += a.sum(1)
        self.gradients += g.sum(1)
        # (a − μ)·g squared needs these once the mean μ is known
        self.weighted += (product[..., None] * g).sum(1)
        self.outer += g.mT @ g

    def results(self) -> list[Float[Tensor, " head"]]:
        """In the order of `Screening`, sums over tokens but for the mean norm."""
        mean = self.outputs / self.tokens
        shifted = self.products - (mean * self.gradients).sum(-1)
        crossed = 2.0 * (mean * self.weighted).sum(-1)
        bent = self.squares - crossed + torch.einsum("hw,hwv,hv->h", mean, self.outer, mean)
        return [-self.products, self.squares, -shifted, bent.clamp(min=0.0), self.norms]


def screen_windows(
    model: PreTrainedModel,
    layout: Layout,
    parts: Sequence[Windows],
    *,
    lowest: int = 0,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> Screening:
    """One forward and one backward pass over the windows.

    No parameter gets a gradient, and layers below `lowest` take no part in the backward pass. One
    layer's activations are held at a time, being computed again when their turn comes, so that
    models that Accelerate reads from the disk stay there.

    Args:
        parts: windows, of one length each.
        lowest: the first layer whose heads are looked at.
        batch_size, attention: as for `evaluate`.
        on_windows: as for `evaluate`; each window counts `SCREENING_PASSES` times.

    Raises:
        ModelError: a gradient is not a finite number.
    """
    layers = [layer for layer in layout.attention_layers if layer >= lowest]
    sums: dict[int, _Sums] = {}

    def on_gradient(layer: int, output: Tensor, gradient: Tensor) -> None:
        if layer not in sums:
            sums[layer] = _Sums(layout.heads, layout.head_dim, output.device)
        sums[layer].add(output, gradient)

    def read(count: int) -> None:
        if on_windows is not None:
            on_windows(SCREENING_PASSES * count)

    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        evaluating(model),
        _frozen(model),
        attending(model, attention),
        _recomputing(model, layout, layers),
        _listening(model, layout, layers, on_gradient),
    ):
        for part in parts:
            for batch in batches(part.tokens, batch_size, read):
                next_token_loss(model, batch.to(model.device)).backward()
    predicted = sum(len(part) * (part.length - 1) for part in parts)
    figures = np.full((5, layout.layers, layout.heads), np.nan)
    for layer, each in sums.items():
        figures[:, layer] = torch.stack(each.results()).cpu().numpy()
        figures[:4, layer] /= predicted
        figures[4, layer] /= each.tokens
    if not np.isfinite(figures[:, layers]).all():
        raise ModelError(
            f"{model_id(model)}: a gradient is not a finite number; in fp16 numbers may overflow: "
            "load the model in bf16 or fp32"
        )
    return Screening(*figures)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """While open, no parameter wants a gradient; its own gradient, if any, is not touched."""
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in wanting:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


@contextmanager
def _recomputing(model: nn.Module, layout: Layout, layers: Sequence[int]) -> Iterator[None]:
    """While open, what a layer computes on its way to its output is computed again in backward."""
    first = min(layers, default=layout.layers)
    blocks = [model.get_submodule(layout.block(layer)) for layer in range(first, layout.layers)]
    again: list[Callable[..., Any]] = [
        # nothing is drawn at random: dropout is off
        partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        for block in blocks
    ]
    # weights that are read from the disk go back when the whole layer has run
    away = any(parameter.is_meta for parameter in model.parameters())
    with set_checkpoint_early_stop(not away), replaced(blocks, again):
        yield


@contextmanager
def _listening(
    model: nn.Module,
    layout: Layout,
    layers: Sequence[int],
    on_gradient: Callable[[int, Tensor, Tensor], None],
) -> Iterator[None]:
    """While open, tells each layer's head outputs with their gradient, in every backward pass."""

    def hook(layer: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        context, *others = inputs
        if not context.requires_grad:
            # the lowest layer: the graph begins here
            context = context.detach().requires_grad_()
        output = split_heads(context.detach(), layout.output, layout.head_dim)

        def told(gradient: Tensor) -> None:
            on_gradient(layer, output, split_heads(gradient, layout.output, layout.head_dim))

        context.register_hook(told)
        return (context, *others)

    handles = []
    try:
        for layer in layers:
            module = model.get_submodule(layout.output.path(layer))
            handles.append(module.register_forward_pre_hook(partial(hook, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()
