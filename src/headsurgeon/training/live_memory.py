"""Running a model without its memory: only shapes are computed, and the bytes alive are counted.

PyTorch's fake tensors have a shape, a device and a storage with a size, but no content. A copy made
of them does what the model would do, operation by operation, so nothing is assumed about how memory
grows with the window. `MemTracker` of `torch.distributed` counts likewise, but files everything
under modules, which a loop made of functions does not need, and has no answer to what a real loop
asks of its numbers (`loss.item()`, "are all masses finite?").
"""

import copy
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from headsurgeon.errors import OperationError

Thing = TypeVar("Thing")
aten = torch.ops.aten


def without_memory(thing: Thing) -> Thing:
    """A deep copy in which every tensor is a fake one; the original is untouched.

    Tensors that are created while it runs from sizes alone, such as positions and masks, are real,
    so that decisions that depend on them are the real ones.
    """
    with FakeCopyMode(FakeTensorMode(allow_non_fake_inputs=True)):
        return copy.deepcopy(thing)


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of tensors that come into being while it is open, until they die.

    A question about the content of a fake tensor is answered with 1 or True: finite, all seen, no
    reason to stop.

    Attributes:
        now: bytes alive.
        peak: the highest that `now` has been.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return func(*args)
        if func is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return torch.ones((), dtype=args[0].dtype).tolist()
        leaves = tree_leaves((args, kwargs))
        given = {leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage(), given)
        return result

    def _note(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in given or key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _Ones(TorchFunctionMode):
    """Fake tensors that leave PyTorch for numpy become arrays of ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.numpy and isinstance(args[0], FakeTensor):
            return np.ones(args[0].shape)
        return func(*args, **(kwargs or {}))


@contextmanager
def live_memory() -> Iterator[LiveMemory]:
    """While open, what copies made by `without_memory` do is counted.

    Raises:
        OperationError: an operation whose output's size depends on the data, that has no rule for
            sizes, or whose rule refuses what the operation itself accepts.
    """
    try:
        with LiveMemory() as memory, _Ones():
            yield memory
    except RuntimeError as error:
        # whatever the kind, PyTorch derives it from this one; what the package raises is not
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OperationError(
            "this model's memory is not known without running it: an operation has no sizes "
            f"({reason})"
        ) from error
