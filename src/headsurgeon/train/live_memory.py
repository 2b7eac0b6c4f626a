"""How much memory tensors take after every operation, and what that would be for longer windows."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Lengths that are tried, tokens; a polynomial of degree 2 needs three.
TRIED = (16, 24, 32)


class LiveMemory(TorchDispatchMode):
    """While open, notes after every operation how many bytes its new tensors hold, and counts down
    again as they die.

    Attributes:
        timeline: bytes alive after each operation; tensors from before do not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timeline: list[int] = []
        self._alive: dict[int, int] = {}

    @property
    def now(self) -> int:
        """Bytes alive."""
        return sum(self._alive.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf) not in before:
                self._note(leaf.untyped_storage())
        self.timeline.append(self.now)
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, key, None)


def extrapolated(
    timeline_of: Callable[[int], Sequence[int]], length: int
) -> Float[np.ndarray, " operation"]:
    """The timeline at `length`, from runs on a few tokens.

    A model runs the same operations whatever the length, and each holds c₀ + c₁·length +
    c₂·length² bytes: constant for weights, linear for hidden states, quadratic for attention maps.
    So three short runs give each operation's memory at any length exactly, whereas the peaks of
    short runs, which lie elsewhere, would not.

    Args:
        timeline_of: runs at a length and returns the bytes alive after each operation.
        length: tokens.
    """
    # whatever a model keeps from its first call on is not part of a step
    timeline_of(TRIED[0])
    if length <= TRIED[-1]:
        return np.asarray(timeline_of(length), dtype=np.float64)
    runs = np.array([timeline_of(tried) for tried in TRIED], dtype=np.float64)
    coefficients = np.linalg.solve(np.vander(TRIED, increasing=True), runs)
    return np.asarray(np.power(float(length), np.arange(len(TRIED))) @ coefficients)
