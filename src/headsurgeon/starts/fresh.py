"""What Q, K and V become without a look at the model's text: redrawn, in part, or kept.

Random numbers are drawn on the CPU in fp32, heads in order, so that a seed means the same on every
device.
"""

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.arch.layout import PARTS, Part
from headsurgeon.starts.head_tensors import HeadTensors, StartContext

_INPUTS: tuple[Part, ...] = ("query", "key", "value")


def xavier_uniform_head(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Xavier uniform on the head's fused [3·head_dim, hidden] block, biases 0.

    Bound √(6 / (hidden + 3·head_dim)). Source: the released code of arXiv:2603.09616.
    """
    _xavier_uniform(heads, context, _INPUTS)


def xavier_normal(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Xavier normal on the same block, standard deviation √(2 / (hidden + 3·head_dim)), biases 0.

    Source: the text of arXiv:2603.09616.
    """
    deviation = sqrt(2.0 / (context.layout.hidden + 3 * context.layout.head_dim))
    _fill(heads, context, lambda block: block.normal_(0.0, deviation, generator=context.generator))


def model(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """As the model itself once started: normal with its `initializer_range`, biases 0."""
    deviation = context.layout.initializer_range
    _fill(heads, context, lambda block: block.normal_(0.0, deviation, generator=context.generator))


def none(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Keeps the weights; with `keep_output` this is the gradient-only control."""


def qk_only(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Q and K as in `xavier_uniform_head`, the same draws; V keeps its stock weights."""
    _xavier_uniform(heads, context, ("query", "key"))


def vo_only(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """V as in `xavier_uniform_head`, the same draws; Q and K keep theirs.

    What becomes of O is the output start's affair.
    """
    _xavier_uniform(heads, context, ("value",))


def partial_reset(heads: Sequence[HeadTensors], context: StartContext, *, rho: float) -> None:
    """ρ·W + √(1 − ρ²)·noise: part of what was learned stays, at the scale it had.

    The noise is normal with the root mean square of each stock block (Q, K, V; weight and bias) for
    itself, so every block keeps its expected norm; ρ = 1 changes nothing.
    """
    for head in heads:
        for part in _INPUTS:
            for blocks in (head.weights, head.biases):
                if part in blocks:
                    _mix(blocks[part], rho, context.generator)


def _mix(block: Tensor, rho: float, generator: torch.Generator) -> None:
    noise = torch.empty(block.shape).normal_(generator=generator).to(block.device)
    size = block.square().mean().sqrt()
    block.mul_(rho).add_(noise * (sqrt(1.0 - rho**2) * size))


def _xavier_uniform(
    heads: Sequence[HeadTensors], context: StartContext, parts: Sequence[Part]
) -> None:
    bound = sqrt(6.0 / (context.layout.hidden + 3 * context.layout.head_dim))
    _fill(
        heads,
        context,
        lambda block: block.uniform_(-bound, bound, generator=context.generator),
        parts,
    )


def _fill(
    heads: Sequence[HeadTensors],
    context: StartContext,
    draw: Callable[[Float[Tensor, "rows hidden"]], Tensor],
    written: Sequence[Part] = _INPUTS,
) -> None:
    """Draws one block for Q, K and V together, or for Q alone where K and V stay.

    Whatever is written, the whole block is drawn: for one seed a part is always the same.
    """
    width = context.layout.head_dim
    for head in heads:
        parts = [part for part in PARTS if part != "output" and part in head.weights]
        block = draw(torch.empty(len(parts) * width, context.layout.hidden))
        for part, rows in zip(parts, block.split(width), strict=True):
            if part in written:
                head.weights[part].copy_(rows)
                if part in head.biases:
                    head.biases[part].zero_()
