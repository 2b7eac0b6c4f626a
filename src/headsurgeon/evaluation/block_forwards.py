"""Putting other forwards in place of those of a model's layers, for a while."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def replaced(blocks: Sequence[nn.Module], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """While open, each block runs its forward of `forwards`; afterwards the one that it had."""
    # accelerate puts its own forward on a module it moves about
    before = {block: vars(block)["forward"] for block in blocks if "forward" in vars(block)}
    try:
        for block, forward in zip(blocks, forwards, strict=True):
            vars(block)["forward"] = forward
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)
        for block, forward in before.items():
            vars(block)["forward"] = forward
