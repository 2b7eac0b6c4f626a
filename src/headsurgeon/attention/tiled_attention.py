"""Causal attention with a key bias in tiles that fit the processor's cache, forward and backward.

PyTorch's fused kernel may be several times slower backward than its matrix products on a CPU; tiles
of scores that are computed again in backward are not. What is kept for it is linear in the window:
queries, keys, values, outputs, and the log-sum-exp ℓ of every row. With p = exp(s − ℓ), outputs o
and their gradient g (Dao 2022, arXiv:2205.14135, section 3.1 and appendix B.4):

    dv_j = Σ_t p_tj g_t     ds_tj = p_tj (g_t·v_j − g_t·o_t)     dq_t = scale Σ_j ds_tj k_j     …

Both passes are operators of their own, so that whoever traces shapes, such as a memory estimate,
sees two operations rather than thousands (and not the scratch memory of one tile or two).
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.tiled_scores import (
    TILED_DEVICES,
    Scratch,
    Tile,
    TiledScores,
    spare,
)
from headsurgeon.errors import StateError

# Probabilities below this are 0. Far below what fp32 can add to 1; products of still smaller ones
# with gradients are denormal numbers, on which some processors are many times slower.
NEGLIGIBLE = 2.0**-60


def tiled_attention(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    value: Float[Tensor, "batch head row value"],
    key_bias: Float[Tensor, "head row"],
    scale: float,
) -> Float[Tensor, "batch head row value"]:
    """softmax(scale·query·key + key_bias)·value over the keys up to each row; differentiable once.

    Args:
        query, key, value: fp32.
        key_bias: by head and key position; no gradient flows into it.
        scale: factor on query·key.

    Raises:
        StateError: another precision, in which sums over a window would be rounded away.
    """
    dtypes = {part.dtype for part in (query, key, value, key_bias)}
    if dtypes != {torch.float32}:
        names = ", ".join(sorted(map(str, dtypes)))
        raise StateError(f"tiles compute in fp32, got {names}; use kernel_attention")
    joined = (part.flatten(0, 1).contiguous() for part in (query, key, value))
    # autocast would make the products of fp32 tensors bf16
    with torch.autocast(query.device.type, enabled=False):
        output: Tensor = _forward(*joined, key_bias.detach(), scale)[0]
    return output.view(*query.shape[:3], value.shape[-1])


def tiles_are_faster(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention on that device, in that precision, is faster in tiles than by a kernel.

    In bf16 and fp16 it is not: a kernel then uses what the processor has for these.
    """
    return device.type in TILED_DEVICES and dtype == torch.float32


@torch.library.custom_op("headsurgeon::tiled_attention", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Outputs, and the log-sum-exp of the scores as `TiledScores` gives them, over log 2.

    The constant in it differs from tile to tile, so it serves `_backward` and nobody else.
    """
    tiles = TiledScores(query, key, key_bias, scale, held=1)
    output = torch.empty_like(value)
    lse = query.new_empty(*query.shape[:2], 1)

    def attend(tile: Tile, scratch: Scratch) -> None:
        scores = tiles.of(tile, scratch)
        largest = scores.amax(-1, keepdim=True)
        weights = _probabilities(scores, largest)
        total = weights.sum(-1, keepdim=True)
        # written where it belongs: a thread that allocates waits for the system, page by page
        context = output[tile.heads, tile.rows]
        torch.bmm(weights, value[tile.heads, tile.keys], out=context).div_(total)
        lse[tile.heads, tile.rows] = largest + total.log2()

    tiles.each(attend)
    return output, lse


@torch.library.custom_op("headsurgeon::tiled_attention_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor,
    output: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values."""
    tiles = TiledScores(query, key, key_bias, scale, held=2)
    gradient = gradient.contiguous()
    mean = (gradient * output).sum(-1, keepdim=True)
    # a row is in one tile of its head, a key in many
    of_query, of_key, of_value = (
        torch.empty_like(query),
        torch.zeros_like(key),
        torch.zeros_like(value),
    )

    def descend(tile: Tile, scratch: Scratch) -> None:
        rows, keys = (tile.heads, tile.rows), (tile.heads, tile.keys)
        weights = _probabilities(tiles.of(tile, scratch), lse[rows])
        of_value[keys].baddbmm_(weights.transpose(1, 2), gradient[rows])
        of_scores = spare(tile, scratch, 1)
        torch.bmm(gradient[rows], value[keys].transpose(1, 2), out=of_scores)
        of_scores.sub_(mean[rows]).mul_(weights)
        torch.bmm(of_scores, key[keys], out=of_query[rows])
        of_key[keys].baddbmm_(of_scores.transpose(1, 2), query[rows])

    tiles.each(descend)
    return of_query.mul_(scale), of_key.mul_(scale), of_value


def _probabilities(
    scores: Float[Tensor, "head row key"], log_sum: Float[Tensor, "head row 1"]
) -> Float[Tensor, "head row key"]:
    """2^(scores − log_sum), in the memory of the scores."""
    return torch.threshold_(scores.sub_(log_sum).exp2_(), NEGLIGIBLE, 0.0)


@_forward.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, key_bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(value), query.new_empty(*query.shape[:2], 1)


@_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    with torch.autocast(gradient.device.type, enabled=False):
        return (*_backward(gradient, *ctx.saved_tensors, ctx.scale), None, None)


_forward.register_autograd(_gradients, setup_context=_keep)
