"""What Q, K and V of an operated head become: small functions by name.

To add one, write a function that changes the views it is given and enter it in `INITS`. Random
numbers are drawn on the CPU in fp32, heads in order, so that a seed means the same on every device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.arch.layout import PARTS
from headsurgeon.operation.slice_maps import HeadTensors


@dataclass(frozen=True)
class InitContext:
    """What an initialisation may know beside the head.

    Attributes:
        hidden: width of the residual stream.
        head_dim: width of one head.
        initializer_range: standard deviation in the model's configuration.
        generator: source of randomness, on the CPU.
    """

    hidden: int
    head_dim: int
    initializer_range: float
    generator: torch.Generator


Init = Callable[[HeadTensors, InitContext], None]


def xavier_uniform_head(head: HeadTensors, context: InitContext) -> None:
    """Xavier uniform on the head's fused [3·head_dim, hidden] block, biases 0.

    Bound √(6 / (hidden + 3·head_dim)). Source: the released code of arXiv:2603.09616.
    """
    bound = sqrt(6.0 / (context.hidden + 3 * context.head_dim))
    _fill(head, context, lambda block: block.uniform_(-bound, bound, generator=context.generator))


def xavier_normal(head: HeadTensors, context: InitContext) -> None:
    """Xavier normal on the same block, standard deviation √(2 / (hidden + 3·head_dim)), biases 0.

    Source: the text of arXiv:2603.09616.
    """
    deviation = sqrt(2.0 / (context.hidden + 3 * context.head_dim))
    _fill(head, context, lambda block: block.normal_(0.0, deviation, generator=context.generator))


def model(head: HeadTensors, context: InitContext) -> None:
    """As the model itself once started: normal with its `initializer_range`, biases 0."""
    deviation = context.initializer_range
    _fill(head, context, lambda block: block.normal_(0.0, deviation, generator=context.generator))


def none(head: HeadTensors, context: InitContext) -> None:
    """Keeps the weights; with `keep-output` this is the gradient-only control."""


INITS: dict[str, Init] = {
    "xavier_uniform_head": xavier_uniform_head,
    "xavier_normal": xavier_normal,
    "model": model,
    "none": none,
}


def _fill(
    head: HeadTensors,
    context: InitContext,
    draw: Callable[[Float[Tensor, "rows hidden"]], Tensor],
) -> None:
    """Draws one block for Q, K and V together, or for Q alone where K and V stay."""
    parts = [part for part in PARTS if part != "output" and part in head.weights]
    block = draw(torch.empty(len(parts) * context.head_dim, context.hidden))
    for part, rows in zip(parts, block.split(context.head_dim), strict=True):
        head.weights[part].copy_(rows)
    for bias in head.biases.values():
        bias.zero_()
