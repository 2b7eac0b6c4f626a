"""A linear layer of which only some rows or columns are parameters that can be trained.

The layer computes what the module it stands for computes, with one product over the whole weight:
the slices are copied into the frozen weight before use, and only if they changed. Its backward
computes weight gradients for the slices alone.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headsurgeon.errors import HeadsurgeonWarning
from headsurgeon.operation.sharding import check_held, refusal, sharded

PREFIX = "slice_"
Side = Literal["out", "in"]


@dataclass(frozen=True)
class SliceMap:
    """Which part of one parameter is a slice.

    Attributes:
        parameter: full name, as in `state_dict()`.
        axis: the axis the indices lie on.
        side: whether that axis holds outputs (Q, K, V) or inputs (output projection) of the layer.
        runs: start and length of each run of indices, ascending, none touching the next.
    """

    parameter: str
    axis: int
    side: Side
    runs: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """Number of indices."""
        return sum(length for _, length in self.runs)

    def offset(self, start: int) -> int:
        """Where index `start` of the parameter lies in the slice."""
        before = 0
        for first, length in self.runs:
            if first <= start < first + length:
                return before + start - first
            before += length
        raise KeyError(start)

    def index(self) -> Int[Tensor, " length"]:
        """All indices, ascending."""
        return torch.cat([torch.arange(start, start + length) for start, length in self.runs])

    def read(self, tensor: Tensor) -> Tensor:
        """A copy of the slice out of the whole parameter."""
        return torch.cat([tensor.narrow(self.axis, *run) for run in self.runs], self.axis)

    def write(self, tensor: Tensor, values: Tensor) -> None:
        """Writes the slice into the whole parameter in place, rounding to its precision."""
        lengths = [length for _, length in self.runs]
        for run, piece in zip(self.runs, values.split(lengths, self.axis), strict=True):
            tensor.narrow(self.axis, *run).copy_(piece)


def merge_runs(blocks: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Blocks (start, length), some perhaps given twice, as ascending runs that do not touch."""
    runs: list[tuple[int, int]] = []
    for start, length in sorted(set(blocks)):
        if runs and runs[-1][0] + runs[-1][1] == start:
            start, length = runs[-1][0], runs[-1][1] + length
            runs.pop()
        runs.append((start, length))
    return tuple(runs)


class SlicedLinear(nn.Module):
    """Stands in for `base` while its model is operated on.

    `weight` and `bias` are the very parameters of `base`, frozen, under their old names;
    `slice_weight` and `slice_bias` are fp32 and the only ones with gradients. `state_dict()` has
    the old keys alone, with the slices merged in; loading one brings the slices up to date.
    Moving or casting the module leaves the slices fp32. Slices are to be changed in place, as
    optimisers do; a write through `.data` without a gradient goes unnoticed until the next one.
    `clamped` says that the family clamps the output, perhaps in place.
    """

    weight: nn.Parameter
    slice_weight: nn.Parameter
    index: Tensor
    _sharded: tuple[str, str] | None = None

    def __init__(
        self, base: nn.Module, weight: SliceMap, bias: SliceMap | None, clamped: bool = False
    ) -> None:
        super().__init__()
        self.clamped = clamped
        # in a tuple, since a bare module would be registered and rename every key
        self._base = (base,)
        self.maps = {"weight": weight} | ({"bias": bias} if bias is not None else {})
        for name, parameter in base.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, slice_map in self.maps.items():
            values = slice_map.read(base.get_parameter(name).detach()).float()
            self.register_parameter(PREFIX + name, nn.Parameter(values))
        self.register_buffer("index", weight.index(), persistent=False)
        self._shapes = {
            name: held.shape for name, held in self._parameters.items() if held is not None
        }
        self._written: dict[str, tuple[int, int]] = {}
        self._gradient_arrived = False

    def __setattr__(self, name: str, value: Any) -> None:
        # FSDP2 puts a whole tensor in place for the length of a forward pass, which looks like any
        # other; what it puts there first, when it is applied, does not
        if self._sharded is None and isinstance(value, nn.Parameter):
            how = sharded(value)
            if how is not None:
                self.__dict__["_sharded"] = (name, how)
        super().__setattr__(name, value)

    def check_held(self) -> None:
        """Raises `StateError` if something has sharded this layer since it was made."""
        if self._sharded is not None:
            raise refusal(*self._sharded)
        check_held(self, self._shapes)

    @property
    def side(self) -> Side:
        """Whether heads lie on the outputs or the inputs of this layer."""
        return self.maps["weight"].side

    @property
    def base(self) -> nn.Module:
        """The module this one stands for, sharing its parameters."""
        base = self._base[0]
        for name in base._parameters:
            if base._parameters[name] is not self._parameters[name]:
                base._parameters[name] = self._parameters[name]
        return base

    def adopt(self) -> None:
        """Takes over where `base` is now, on its device, after it served on its own."""
        base = self._base[0]
        self._parameters.update(base._parameters)
        for name in self.maps:
            master = self.get_parameter(PREFIX + name)
            master.data = master.data.to(self.weight.device)
            master.grad = None
        self.index = self.index.to(self.weight.device)
        self.train(base.training)

    def forward(self, inputs: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        self.sync()
        output: Tensor = self.base(inputs)
        if not (torch.is_grad_enabled() and self.slice_weight.requires_grad):
            return output
        slice_map = self.maps["weight"]
        transposed = slice_map.axis == (1 if self.side == "out" else 0)
        with_gradient: Tensor = _SliceGradient.apply(
            output,
            inputs.detach(),
            self.slice_weight,
            # the bias of an output projection belongs to no head, so it is never trained
            self._parameters.get(PREFIX + "bias") if self.side == "out" else None,
            self.index,
            self,
            transposed,
        )
        return with_gradient

    def sync(self) -> None:
        """Copies the slices that changed since the last time into the frozen weight and bias.

        Raises:
            StateError: the weights have been sharded since.
        """
        self.check_held()
        for name, slice_map in self.maps.items():
            values = self.get_parameter(PREFIX + name)
            target = self.get_parameter(name)
            stamp = (values.untyped_storage()._cdata, values._version)
            if self._written.get(name) != stamp:
                # nothing is written twice: autograd refuses a weight touched between forward and
                # backward, and gradient checkpointing runs the forward again in between
                with torch.no_grad():
                    slice_map.write(target, values)
                self._written[name] = stamp
            elif self._gradient_arrived:
                # fused optimisers change parameters without telling the version counter, and
                # writing the same values again must not tell it either
                slice_map.write(target.data, values.data)
        self._gradient_arrived = self.slice_weight.grad is not None

    def note_gradient(self) -> None:
        """Called by the backward: from now on an optimiser may have changed the slices."""
        self._gradient_arrived = True

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SlicedLinear":
        self.sync()
        masters = [self.get_parameter(PREFIX + name) for name in self.maps]
        kept = [(master.data, master.grad) for master in masters]
        super()._apply(fn, recurse)
        for name, (data, grad) in zip(self.maps, kept, strict=True):
            master = self.get_parameter(PREFIX + name)
            if master.dtype != torch.float32:
                device = master.device
                master.grad = None
                master.data = data.to(device)
                master.grad = None if grad is None else grad.to(device)
        return self

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        self.sync()
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.maps:
            del destination[prefix + PREFIX + name]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own_missing: list[str] = []
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, own_missing, unexpected_keys, error_msgs
        )
        slices = {prefix + PREFIX + name for name in self.maps}
        missing_keys += [key for key in own_missing if key not in slices]
        for name, slice_map in self.maps.items():
            if prefix + name in state_dict:
                self._refresh(name, slice_map)

    @torch.no_grad()
    def _refresh(self, name: str, slice_map: SliceMap) -> None:
        loaded = slice_map.read(self.get_parameter(name))
        master = self.get_parameter(PREFIX + name)
        # a value that is merely the rounded master leaves the master its precision
        same = master.to(loaded.dtype) == loaded
        if loaded.element_size() < 4 and not bool(same.all()):
            warnings.warn(
                f"slices were loaded from {loaded.dtype} weights and are rounded to it; a run that "
                "resumes from them ends elsewhere than one that never stopped (headsurgeon.train "
                "keeps them in fp32)",
                category=HeadsurgeonWarning,
                stacklevel=2,
            )
        master.copy_(torch.where(same, master, loaded.float()))


class _SliceGradient(torch.autograd.Function):
    """Passes the layer's output on and collects, on the way back, the slices' gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        output: Tensor,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        index: Tensor,
        layer: SlicedLinear,
        transposed: bool,
    ) -> Tensor:
        # kept in the precision the product ran in, which under autocast is not that of the input
        kept = inputs if layer.side == "out" else inputs.index_select(-1, index)
        ctx.save_for_backward(kept.to(output.dtype), index)
        ctx.layer, ctx.transposed = layer, transposed
        # what a family clamps in place must not be a view
        return output.clone() if layer.clamped else output.view_as(output)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, index = ctx.saved_tensors
        ctx.layer.note_gradient()
        kept = kept.reshape(-1, kept.shape[-1])
        rows = gradient.reshape(-1, gradient.shape[-1])
        weight = bias = None
        if ctx.needs_input_grad[2]:
            of_slice = rows.index_select(1, index) if ctx.layer.side == "out" else rows
            left, right = (kept, of_slice) if ctx.transposed else (of_slice, kept)
            weight = (left.t() @ right).float()
        if ctx.needs_input_grad[3]:
            bias = rows.sum(0, dtype=torch.float32).index_select(0, index)
        return gradient, None, weight, bias, None, None, None
