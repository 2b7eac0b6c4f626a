"""Between the features of a projection and its heads, in the order the layout states."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.arch import Projection


def split_heads(
    projected: Float[Tensor, "batch row features"], projection: Projection, width: int
) -> Float[Tensor, "batch head row width"]:
    """The features of each head; a view where the heads lie at equal steps.

    Args:
        projected: output of the projection's module (or input, for the output projection).
        projection: where each head starts.
        width: features per head.
    """
    starts = projection.starts
    batch, rows, features = projected.shape
    step = _step(starts, width)
    if step is None or features % step:
        blocks = torch.tensor([start // width for start in starts], device=projected.device)
        runs = projected.view(batch, rows, features // width, width)
        return runs[:, :, blocks].transpose(1, 2)
    first, offset = divmod(starts[0], step)
    runs = projected.view(batch, rows, features // step, step)
    heads = runs[:, :, first : first + len(starts), offset : offset + width]
    return heads.transpose(1, 2)


def merge_heads(
    context: Float[Tensor, "batch head row width"], projection: Projection
) -> Float[Tensor, "batch row features"]:
    """The input of the output projection, from each head's output."""
    starts = projection.starts
    if list(starts) != sorted(starts):
        order = sorted(range(len(starts)), key=starts.__getitem__)
        context = context[:, order]
    return context.transpose(1, 2).flatten(2)


def shared_heads(
    grouped: Float[Tensor, "batch kv_head row width"], heads: int
) -> Float[Tensor, "batch head row width"]:
    """Keys or values for every query head; neighbours read the same key/value head."""
    if grouped.shape[1] == heads:
        return grouped
    return grouped.repeat_interleave(heads // grouped.shape[1], dim=1)


def _step(starts: tuple[int, ...], width: int) -> int | None:
    """The distance between neighbouring heads; None when it varies."""
    if len(starts) == 1:
        return width
    steps = {after - before for before, after in pairwise(starts)}
    step = steps.pop()
    return step if not steps and step > 0 else None
