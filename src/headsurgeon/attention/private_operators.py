"""The one place that knows PyTorch's private fused operators, which also return the log-sum-exp.

Their public face, `scaled_dot_product_attention`, keeps the log-sum-exp to itself. Private
operators may change or vanish with any release: `kernel_available` in `kernel_statistics.py`
compares them with exact statistics before they are used, and nobody else calls them.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Attended = tuple[Float[Tensor, "batch head row width"], Float[Tensor, "batch head row"]]


def attend_with_lse(
    query: Float[Tensor, "batch head row width"],
    key: Float[Tensor, "batch head row width"],
    value: Float[Tensor, "batch head row width"],
    scale: float,
) -> Attended | None:
    """Causal attention and each row's log Σ exp(scaled score), or None without an operator.

    Args:
        query, key, value: fp32, of the same width, which is a multiple of 8.
        scale: factor on query·key.
    """
    known = OPERATORS.get(query.device.type)
    if known is None or not hasattr(torch.ops.aten, known[0]):
        return None
    operator, call = known
    return call(getattr(torch.ops.aten, operator), query, key, value, scale)


def _cpu(
    operator: Callable[..., tuple[Tensor, ...]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
) -> Attended:
    output, lse = operator(query, key, value, 0.0, True, scale=scale)
    return output, lse


def _cuda(
    operator: Callable[..., tuple[Tensor, ...]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
) -> Attended:
    # the flash operator takes half precision alone; this one takes fp32 too
    output, lse, *_ = operator(query, key, value, None, True, 0.0, True, scale=scale)
    # rows of the log-sum-exp are padded for alignment
    return output, lse[..., : query.shape[2]]


OPERATORS: dict[str, tuple[str, Callable[..., Attended]]] = {
    "cpu": ("_scaled_dot_product_flash_attention_for_cpu", _cpu),
    "cuda": ("_scaled_dot_product_efficient_attention", _cuda),
}
