"""Weights spread over several processes, under which slices would silently train wrongly.

A library that shards a model gathers a weight right before it is used and drops it right after, so
that a slice written into it once is gone the second time. Such a model is refused.
"""

import sys

import torch
from torch import Tensor, nn

from headsurgeon.errors import StateError


def sharded(parameter: Tensor | None) -> str | None:
    """What shards this tensor, in words; None for one that is whole and held by this process."""
    if parameter is None:
        return "the parameter is gone (FSDP, flattened)"
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is not None and isinstance(parameter.data, distributed.DTensor):
        return "a DTensor (FSDP2 or tensor parallelism)"
    if getattr(parameter, "_fsdp_flattened", False):
        return "flattened by FSDP"
    if hasattr(parameter, "ds_id"):
        return "partitioned by DeepSpeed ZeRO-3"
    if not isinstance(parameter, nn.Parameter):
        return "a view instead of a parameter (FSDP, flattened)"
    return None if parameter.numel() else "an empty placeholder (DeepSpeed ZeRO-3 or FSDP)"


def check_unsharded(model: nn.Module) -> None:
    """Refuses a model of which any part is spread over several processes.

    Raises:
        StateError: names the first such part.
    """
    for name, parameter in model.named_parameters():
        how = sharded(parameter)
        if how is not None:
            raise refusal(name, how)
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None:
        kinds = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
        for name, module in model.named_modules():
            # after a forward pass the outermost one may hold whole weights until the next step
            if isinstance(module, kinds):
                raise refusal(name or type(module).__name__, "sharded by FSDP")
    size = getattr(model, "tp_size", None)
    if isinstance(size, int) and size > 1:
        raise refusal(type(model).__name__, f"split by tensor parallelism over {size} processes")


def check_held(layer: nn.Module, shapes: dict[str, torch.Size]) -> None:
    """Refuses a slice layer whose parameters are no longer the whole tensors that it was made with.

    Args:
        layer: the slice layer.
        shapes: names of its parameters and their shapes when it was made.

    Raises:
        StateError: something has sharded them since.
    """
    for name, shape in shapes.items():
        parameter = layer._parameters.get(name)
        how = sharded(parameter)
        if how is None and parameter is not None and parameter.shape != shape:
            how = f"of shape {list(parameter.shape)} instead of {list(shape)}"
        if how is not None:
            raise refusal(name, how)


def refusal(name: str, how: str) -> StateError:
    """The error for one sharded part."""
    return StateError(
        f"{name} is {how}: slices cannot be trained in a sharded model, since what is written "
        "into a gathered weight is dropped with it; keep the model whole in every process "
        "(one process, or DDP), or merge the patient before sharding"
    )
