"""Floating-point operations of the matrix products that a piece of code really runs."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def count(run: Callable[[], Any]) -> int:
    """Runs once and counts; a multiplication and its addition are two.

    Causal fused attention counts half a square, since it skips the other half.
    """
    counter = FlopCounterMode(
        display=False, custom_mapping={_FORWARD: _forward, _BACKWARD: _backward}
    )
    with counter:
        run()
    return counter.get_total_flops()


def _forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    batch, heads, rows, width = query
    # two products of rows × rows × width, halved
    return batch * heads * rows * rows * (width + value[-1])


def _backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    batch, heads, rows, width = query
    # the scores again, and the gradients of values, probabilities, queries and keys
    return batch * heads * rows * rows * (3 * width + 2 * value[-1])
