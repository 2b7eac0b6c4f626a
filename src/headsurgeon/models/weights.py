"""The weights of a module, wherever and in whichever form they are held.

Accelerate may keep them on the disk, and a quantisation library may hold them in 8 or 4 bit. Such a
model is left as it is: its weights can be read here, but they cannot be operated on.
"""

import torch
from accelerate.utils import align_module_device
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import PreTrainedModel

from headsurgeon.errors import ModelError


def ordinary(parameter: Tensor) -> bool:
    """Whether a parameter holds plain numbers of 16 bits or more, not packed or scaled ones."""
    # some libraries' tensors call themselves fp32 and wrap the numbers they are made of
    plain = parameter.is_floating_point() and not is_traceable_wrapper_subclass(parameter.data)
    return plain and parameter.element_size() >= 2


def quantised(model: nn.Module) -> str | None:
    """The name of a parameter that is held in 8 or 4 bit; None where there is none."""
    return next((name for name, value in model.named_parameters() if not ordinary(value)), None)


def precision(model: PreTrainedModel) -> str:
    """What results record: the dtype, and the form in which weights of fewer bits are held."""
    dtype = str(model.dtype).removeprefix("torch.")
    packed = quantised(model)
    if packed is None:
        return dtype
    return f"{dtype}, quantised ({type(model.get_parameter(packed)).__name__})"


def check_whole(model: nn.Module) -> None:
    """Refuses a model that can only be measured.

    Raises:
        ModelError: weights are quantised, or not in memory.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ModelError(
                f"{name} is not in memory (offloaded), so this model can be measured and not "
                "operated on; load it without max_memory, on a machine where it fits"
            )
    packed = quantised(model)
    if packed is not None:
        kind = type(model.get_parameter(packed)).__name__
        raise ModelError(
            f"{packed} is quantised ({kind}), so this model can be measured and not operated on; "
            "load the checkpoint that it was made from in bf16, fp16 or fp32"
        )


@torch.no_grad()
def weight_of(
    module: nn.Module, transposed: bool = False, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "out in"]:
    """The weight of a linear module as in `nn.Linear`, read only.

    What a quantisation library holds, and what an adapter adds, is asked for through the module
    itself, whatever its format: its output for unit vectors is its weight, as exactly as it
    computes.

    Args:
        module: `nn.Linear`, `Conv1D`, or a module of a quantisation library or
            of PEFT.
        transposed: whether its weight is held as [in, out], as in `Conv1D`.
        dtype: of the inputs that the module usually gets.

    Raises:
        ModelError: another module.
    """
    # a weight that Accelerate keeps elsewhere is gone again by the time the module has been called
    with align_module_device(module):
        held = dict(module.named_parameters(recurse=False))
        weight = held.get("weight")
        if weight is not None and ordinary(weight):
            return weight.detach().T if transposed else weight.detach()
        if not hasattr(module, "in_features"):
            raise ModelError(
                f"expected a linear module (nn.Linear, or one of a library that stands for it), "
                f"found {type(module).__name__}; load the model again, without replacing modules"
            )
        # an adapter's module (PEFT) has none of its own
        device = next(module.parameters()).device
        units = torch.eye(int(module.in_features), dtype=dtype, device=device)  # type: ignore[arg-type]
        # not by calling it, which would call the hooks of those who listen
        output: Tensor = module.forward(units)
        bias = getattr(module, "bias", None)
        return (output if bias is None else output - bias).T
