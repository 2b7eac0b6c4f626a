"""Row statistics from one call of a fused kernel: O(T) memory, no attention map.

The kernel averages whatever stands in the values, so with [value, key, bias, position] there, one
call yields the head's output, E_p[k], E_p[b] and the mean position, besides the log-sum-exp ℓ:

    entropy_t = ℓ_t − E_p[s_t] = ℓ_t − scale·q_t·E_p[k] − E_p[b],   p_tj = exp(s_tj − ℓ_t)

and the masses on positions 0, t, t − 1, t − 2 follow from their scores s alone.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.blocked_statistics import blocked_statistics
from headsurgeon.attention.folded_bias import centred, fold_bias, padded, widen
from headsurgeon.attention.private_operators import attend_with_lse
from headsurgeon.attention.row_statistics import RowStatistics
from headsurgeon.errors import StateError

# Numbers held per temporary; heads are taken in groups that stay below it.
GROUP_NUMBERS = 2**21
# Largest difference from the exact statistics that the self-check accepts.
TOLERANCE = 1e-4


def kernel_statistics(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    key_bias: Float[Tensor, "head row"],
    scale: float,
    value: Float[Tensor, "batch head row value"] | None = None,
) -> tuple[RowStatistics, Float[Tensor, "batch head row value"] | None]:
    """Statistics of causal attention with a key bias, and the heads' outputs if asked for.

    Works in fp32 whatever comes in: an average of positions or keys rounded to bf16 would spoil
    distance and entropy.

    Args:
        query, key: as they enter attention.
        key_bias: added to the scaled scores, by head and key position.
        scale: factor on query·key.
        value: averaged along with the rest; leave out where the output is not wanted.

    Returns:
        The same statistics as `blocked_statistics`, and the attention output (fp32) or None.

    Raises:
        StateError: no such operator on this device; ask `kernel_available` first.
    """
    batch, heads, rows, width = query.shape
    bias = centred(key_bias.float())
    value_width = 0 if value is None else value.shape[-1]
    total = padded(value_width + width + 2)
    groups = math.ceil(heads * batch * rows * total / GROUP_NUMBERS)
    # of equal size, so that no thread waits for a last small group
    group = math.ceil(heads / groups)
    statistics: list[tuple[Tensor, ...]] = []
    outputs: list[Tensor] = []
    for start in range(0, heads, group):
        part = slice(start, start + group)
        averaged = None if value is None else value[:, part].float()
        fields, output = _group(
            query[:, part].float(), key[:, part].float(), averaged, bias[part], scale, total
        )
        statistics.append(fields)
        outputs.append(output)
    joined = (torch.cat(pieces, dim=1) for pieces in zip(*statistics, strict=True))
    return RowStatistics(*joined), None if value is None else torch.cat(outputs, dim=1)


def _group(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    value: Float[Tensor, "batch head row value"] | None,
    bias: Float[Tensor, "head row"],
    scale: float,
    total: int,
) -> tuple[tuple[Tensor, ...], Float[Tensor, "batch head row value"]]:
    """One group of heads: the fields of `RowStatistics`, and the outputs."""
    batch, heads, rows, width = query.shape
    positions = torch.arange(rows, device=query.device, dtype=torch.float32) - rows // 2
    wide_query, wide_key = widen(query, key, fold_bias(bias, scale, torch.float32), total)
    value_width = 0 if value is None else value.shape[-1]
    averaged = query.new_zeros(batch, heads, rows, total)
    if value is not None:
        averaged[..., :value_width] = value
    keys_end = value_width + width
    averaged[..., value_width:keys_end] = key
    averaged[..., keys_end] = bias
    averaged[..., keys_end + 1] = positions
    attended = attend_with_lse(wide_query, wide_key, averaged, scale)
    if attended is None:
        raise StateError(
            f"no attention operator on {query.device.type!r} returns the log-sum-exp; use "
            "blocked_statistics"
        )
    mean, lse = attended
    mean_score = (query * mean[..., value_width:keys_end]).sum(-1) * scale + mean[..., keys_end]
    first = (query @ key[:, :, 0, :, None]).squeeze(-1) * scale + bias[:, :1]
    local = [_mass_back(query, key, bias, scale, lse, back) for back in range(3)]
    fields = (
        (first - lse).exp().clamp(max=1.0),
        (lse - mean_score).clamp(min=0.0),
        (positions - mean[..., keys_end + 1]).clamp(min=0.0),
        local[1],
        (local[0] + local[1] + local[2]).clamp(max=1.0),
    )
    return fields, mean[..., :value_width]


def _mass_back(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    bias: Float[Tensor, "head row"],
    scale: float,
    lse: Float[Tensor, "batch head row"],
    back: int,
) -> Float[Tensor, "batch head row"]:
    """Probability on position t − back; 0 in the rows that have none."""
    rows = query.shape[2]
    mass = torch.zeros_like(lse)
    if rows <= back:
        return mass
    scores = (query[:, :, back:] * key[:, :, : rows - back]).sum(-1) * scale
    scores += bias[:, : rows - back]
    mass[..., back:] = (scores - lse[..., back:]).exp().clamp(max=1.0)
    return mass


def kernel_available(device: torch.device) -> bool:
    """Whether `kernel_statistics` works on this kind of device, found out once by comparing it.

    Random queries and keys with a steep and a shallow bias go through it and through
    `blocked_statistics`; a missing operator, one that fails, or a difference above 1e-4 means that
    tiles have to serve.
    """
    return _checked(device.type)


@cache
def _checked(device_type: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    batch, heads, rows, width = 2, 2, 70, 16
    # what is right is computed on the CPU, in operations that every device would have to have
    query, key, value = (
        torch.randn(batch, heads, rows, width, generator=generator) for _ in range(3)
    )
    bias = torch.tensor([0.5, 0.01])[:, None] * torch.arange(rows)
    scale = width**-0.5
    reference = blocked_statistics(query, key, bias, scale)
    try:
        ours, output = kernel_statistics(
            query.to(device_type),
            key.to(device_type),
            bias.to(device_type),
            scale,
            value.to(device_type),
        )
    except (StateError, RuntimeError, TypeError, NotImplementedError, ValueError):
        # a private operator may refuse in any of these ways once its signature has changed
        return False
    pairs = [(getattr(ours, name), getattr(reference, name)) for name in vars(reference)]
    scores = query @ key.transpose(-1, -2) * scale + bias[:, None]
    later = torch.ones(rows, rows, dtype=torch.bool).triu(1)
    pairs.append((output, scores.masked_fill(later, -torch.inf).softmax(-1) @ value))
    return all(
        value.shape == exact.shape and bool(((value.cpu() - exact).abs() <= TOLERANCE).all())
        for value, exact in pairs
    )
