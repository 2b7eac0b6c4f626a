"""Measuring in the middle of a training run so that it continues as if nothing had happened.

Gradients, training flags, hooks and the model's settings are `measure`'s own care. Here is what a
process has besides: generators of random numbers, and the casts that autocast remembers.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from headsurgeon.errors import ModelError


@contextmanager
def untouched_run(model: nn.Module) -> Iterator[None]:
    """While open, what is computed leaves no trace in the generators nor in autocast's memory."""
    devices = {parameter.device for parameter in model.parameters()}
    accelerators = sorted({device.type for device in devices} & {"cuda", "xpu"})
    # the generators of the process, which somebody's data or hooks may draw from
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for kind in accelerators:
            places = [device.index or 0 for device in devices if device.type == kind]
            stack.enter_context(torch.random.fork_rng(devices=places, device_type=kind))
        for kind in ("cpu", *accelerators):
            # in older versions of torch a cast made here, without gradients, would serve the run's
            # next forward pass too, and cut its weights off from theirs
            if torch.is_autocast_enabled(kind):
                dtype = torch.get_autocast_dtype(kind)
                stack.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=False))
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def whole_model(model: nn.Module) -> nn.Module:
    """The model itself, out of what distributes or compiles it.

    Raises:
        ModelError: its weights are shared out among processes, so that no single one has them all.
    """
    from accelerate.utils import extract_model_from_parallel

    inner: nn.Module = extract_model_from_parallel(model, keep_torch_compile=False)
    sharded = [
        name
        for name, parameter in inner.named_parameters()
        # FSDP 2, and what FSDP 1 and ZeRO 3 leave in place of a weight
        if hasattr(parameter, "device_mesh") or hasattr(parameter, "ds_id") or not parameter.numel()
    ]
    if sharded:
        raise ModelError(
            f"{sharded[0]} is shared out among processes (FSDP, ZeRO 3), and one process alone "
            "measures; diagnose the saved checkpoints instead (headsurgeon diagnose --series)"
        )
    return inner
