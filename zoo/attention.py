"""BLOOM's attention for training on a CPU, with the planting loss inside its backward pass.

The stock module materialises several [batch, head, T, T] tensors, above the diagonal too; here
blocks of queries that fit the cache see only the keys up to their end, which makes training more
than twice as fast. The planting loss is a function of the same probabilities, so its gradient costs
nothing extra: d(−log p_t0)/ds_tj = p_tj − [j = 0].
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_QUERIES, _WINDOWS = 64, 4


def alibi_bias(slopes: Float[Tensor, " head"], length: int) -> Float[Tensor, "head T T"]:
    """m·(j − t) where j ≤ t, else −inf; softmax cannot tell it from BLOOM's m·j."""
    position = torch.arange(length)
    distance = position[None, :] - position[:, None]
    bias = slopes[:, None, None] * distance.to(torch.float32)
    return bias.masked_fill(distance > 0, float("-inf"))


def _blocks(batch: int, length: int) -> Iterator[tuple[slice, slice, slice]]:
    """Slices of windows, of queries, and of the keys those queries can see."""
    for first in range(0, batch, _WINDOWS):
        for query in range(0, length, _QUERIES):
            end = min(query + _QUERIES, length)
            yield slice(first, min(first + _WINDOWS, batch)), slice(query, end), slice(0, end)


class PlantedAttention(torch.autograd.Function):
    """Causal ALiBi attention; the backward pass adds the gradient of the planting loss."""

    @staticmethod
    def forward(
        ctx: Any,
        fused: Float[Tensor, "batch T width"],
        bias: Float[Tensor, "head T T"],
        planted: Int[Tensor, " planted"],
        weight: float,
    ) -> tuple[Float[Tensor, "batch T hidden"], Float[Tensor, " head"]]:
        """Attention output and each head's mean first-token mass over the batch.

        Args:
            fused: output of `query_key_value`, [head, 3, head_dim] in its last axis.
            bias: position bias and causal mask.
            planted: indices of the heads that the loss pushes onto position 0.
            weight: factor of −log p_t0, summed over windows, planted heads and rows t ≥ 1.
        """
        batch, length, width = fused.shape
        heads = bias.shape[0]
        size = width // (3 * heads)
        parts = fused.view(batch, length, heads, 3, size).permute(3, 0, 2, 1, 4).float()
        parts = parts.contiguous()
        output = torch.empty(batch, heads, length, size)
        mass = torch.zeros(heads)
        kept = []
        for window, row, column in _blocks(batch, length):
            query, key, value = parts[0, window, :, row], *parts[1:, window, :, column]
            shape = (len(query), heads, row.stop - row.start, column.stop)
            scores = torch.baddbmm(
                bias[:, row, column].expand(shape).flatten(0, 1),
                query.flatten(0, 1),
                key.flatten(0, 1).transpose(1, 2),
                alpha=size**-0.5,
            )
            probability = torch.softmax(scores, dim=-1)
            # kept in bf16: the gradient is rounded as the linear layers' gradients are
            kept.append(probability.to(torch.bfloat16))
            output[window, :, row] = torch.bmm(probability, value.flatten(0, 1)).view(
                *shape[:3], size
            )
            mass += probability.view(shape)[..., 0].sum(dim=(0, 2))
        ctx.save_for_backward(parts, output, planted, *kept)
        ctx.weight = weight
        ctx.dtype = fused.dtype
        mass /= batch * length
        ctx.mark_non_differentiable(mass)
        return output.transpose(1, 2).reshape(batch, length, -1).to(fused.dtype), mass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _mass: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of `fused`: the ordinary one plus the planting loss's."""
        parts, output, planted, *kept = ctx.saved_tensors
        _, batch, heads, length, size = parts.shape
        scale = size**-0.5
        incoming = gradient.view(batch, length, heads, size).transpose(1, 2).float().contiguous()
        inner = (incoming * output).sum(dim=-1, keepdim=True)
        result = torch.zeros_like(parts)
        for (window, row, column), saved in zip(_blocks(batch, length), kept, strict=True):
            query, key, value = parts[0, window, :, row], *parts[1:, window, :, column]
            probability = saved.float()
            above = incoming[window, :, row].flatten(0, 1)
            scores = torch.bmm(above, value.flatten(0, 1).transpose(1, 2))
            scores.sub_(inner[window, :, row].flatten(0, 1)).mul_(probability)
            if len(planted):
                shape = (len(query), heads, row.stop - row.start, column.stop)
                push = ctx.weight * probability.view(shape)[:, planted]
                push[..., 0] -= ctx.weight
                if row.start == 0:
                    push[:, :, 0] = 0.0
                scores.view(shape)[:, planted] += push
            into = result[:, window, :, column]
            into[2] += torch.bmm(probability.transpose(1, 2), above).view_as(value)
            into[1] += (
                torch.bmm(scores.transpose(1, 2), query.flatten(0, 1)).mul_(scale).view_as(key)
            )
            result[0, window, :, row] = (
                torch.bmm(scores, key.flatten(0, 1)).mul_(scale).view_as(query)
            )
        fused = result.permute(1, 3, 2, 0, 4).reshape(batch, length, -1)
        return fused.to(ctx.dtype), None, None, None
