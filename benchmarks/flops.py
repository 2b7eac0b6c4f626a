"""Floating-point operations of the matrix products that a piece of code runs."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# registers the operators
import headsurgeon.attention.tiled_attention  # noqa: F401

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_TILED_FORWARD = torch.ops.headsurgeon.tiled_attention
_TILED_BACKWARD = torch.ops.headsurgeon.tiled_attention_backward


def count(run: Callable[[], Any]) -> int:
    """Runs once and counts; a multiplication and its addition are two.

    Causal attention without maps counts half a square, although a kernel or tiles compute some more
    along the diagonal.
    """
    counter = FlopCounterMode(
        display=False,
        custom_mapping={
            _FORWARD: _forward,
            _BACKWARD: _backward,
            _TILED_FORWARD: _forward,
            _TILED_BACKWARD: _backward,
        },
    )
    with counter:
        run()
    return counter.get_total_flops()


def _forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    *heads, rows, width = query
    # two products of rows × rows × width, halved
    return math.prod(heads) * rows * rows * (width + value[-1])


def _backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
    *heads, rows, width = query
    # the scores again, and the gradients of values, probabilities, queries and keys
    return math.prod(heads) * rows * rows * (3 * width + 2 * value[-1])
