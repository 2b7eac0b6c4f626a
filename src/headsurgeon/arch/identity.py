"""Whether the code that runs in a model is the code that its layout describes.

A layout is chosen by `model_type`, which is only a name: code that comes with a checkpoint, a
subclass or a patched function may compute something else under it. What is not `transformers'` own
(or that of the libraries below it) is therefore refused.
"""

import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from headsurgeon.errors import UnsupportedModel

# transformers, what it runs on, what holds its weights in other forms, and this package
_KNOWN = {
    *("transformers", "torch", "accelerate", "kernels", "headsurgeon"),
    *("safetensors", "numpy", "huggingface_hub", "causal_conv1d", "flash_attn"),
    *("bitsandbytes", "torchao", "optimum", "compressed_tensors", "gptqmodel", "hqq", "eetq"),
    "peft",
}


def check_code(model: PreTrainedModel) -> None:
    """Refuses a model in which other code runs than that which its layout describes.

    Raises:
        UnsupportedModel: its class, or one inside of it, is not `transformers'` own and computes
            something of its own; or a function has been put in place of one of `transformers'`.
    """
    if hasattr(model, "_orig_mod"):
        raise UnsupportedModel(
            "this is torch.compile's wrapper of a model; measure the model itself "
            "(model._orig_mod), or compile it in place (model.compile())"
        )
    expected = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(model.config), None)
    classes = expected if isinstance(expected, tuple) else (expected,)
    kinds = _kinds(model)
    if expected is not None and not any(kind in classes for kind in type(model).__mro__):
        names = " or ".join(kind.__name__ for kind in classes if kind is not None)
        _refuse(
            f"{type(model).__name__} under the name {model.config.model_type!r}, "
            f"which is {names} in transformers"
        )
    # the classes of one model share most of what they inherit
    foreign_method = cache(_foreign_method)
    for kind, name in kinds.items():
        # LoRA's layers are linear still, which is all that is assumed of a projection
        if kind.__module__.startswith("peft.") and ".lora." not in kind.__module__:
            _refuse(f"{kind.__module__}.{kind.__qualname__} (at {name or 'the top'})")
        own = _own(kind, foreign_method)
        if own is not None:
            _refuse(f"{own} of {kind.__module__}.{kind.__qualname__} (at {name or 'the top'})")
    for name, module in model.named_modules():
        for method, function in _put_in_place(module):
            _refuse(f"a {method} from {_origin(function)} at {name or 'the top'}")
    for origin in {kind.__module__ for kind in kinds if _is_transformers(kind)}:
        for name, held in vars(sys.modules[origin]).items():
            if isinstance(held, FunctionType) and not _library(held.__module__):
                _refuse(f"{origin}.{name}, which comes from {held.__module__}")
    attention_name = model.config.get_text_config()._attn_implementation
    if str(attention_name).startswith("paged|"):
        raise UnsupportedModel(
            f"attention {attention_name!r} is for a server's batches and sees later tokens in "
            "an ordinary forward pass; call model.set_attn_implementation('sdpa'), or 'eager'"
        )
    attention: Any = ALL_ATTENTION_FUNCTIONS.get(attention_name, None)
    if attention is not None and not _known(_origin(attention)):
        _refuse(f"the attention function {attention_name!r}, which comes from {_origin(attention)}")


def foreign_hooks(module: nn.Module) -> dict[int, str]:
    """The forward hooks of a module that neither a library nor this package put there.

    Returns:
        By the number that `torch` gave each of them: the module in which its code was written.
    """
    hooks = {**module._forward_pre_hooks, **module._forward_hooks}
    origins = {number: _origin(hook) for number, hook in hooks.items()}
    return {number: origin for number, origin in origins.items() if not _known(origin)}


def _refuse(what: str) -> None:
    raise UnsupportedModel(
        f"this model runs code that no layout describes: {what}; expected the classes and "
        "functions of transformers as they are: load the weights with headsurgeon.load or "
        "AutoModelForCausalLM (without trust_remote_code), before anything is patched"
    )


def _kinds(model: nn.Module) -> dict[type[nn.Module], str]:
    """The classes of a model and of all modules inside of it, each with where it was seen first."""
    first_seen: dict[type[nn.Module], str] = {}
    for name, module in model.named_modules():
        first_seen.setdefault(type(module), name)
    return first_seen


def _own(kind: type[nn.Module], foreign_method: Callable[[type], str | None]) -> str | None:
    """What a class computes in a way of its own; None if it only adds what the family never calls.

    The methods of a known class are its own as long as they were written where that class was.
    """
    base = next(known for known in kind.__mro__ if _known(known.__module__))
    if base is nn.Module and kind is not base:
        return "the forward"
    for owner in kind.__mro__:
        if _known(owner.__module__):
            method = foreign_method(owner)
        else:
            methods = (name for name, _ in _functions(owner) if name != "__init__")
            method = next((name for name in methods if hasattr(base, name)), None)
        if method is not None:
            return f"the method {method}"
    return None


def _foreign_method(owner: type) -> str | None:
    """The first method of a known class that was written elsewhere."""
    return next((name for name, held in _functions(owner) if not _known(_origin(held))), None)


def _functions(owner: type) -> Iterator[tuple[str, Any]]:
    if owner is object:
        return
    for name, value in vars(owner).items():
        held = getattr(value, "__func__", value)
        if isinstance(held, property):
            held = held.fget
        if isinstance(held, FunctionType):
            yield name, held


def _put_in_place(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Functions of other code that stand on one module in place of its class' methods."""
    for name, value in vars(module).items():
        replaces = callable(value) and callable(getattr(type(module), name, None))
        if replaces and not _known(_origin(value)):
            yield name, value


def _origin(function: Any) -> str:
    """The module in which a function was written, through what it is wrapped in."""
    inner = getattr(function, "__func__", function)
    inner = getattr(inner, "func", inner)
    code = getattr(inner, "__module__", None)
    return str(code or type(inner).__module__)


def _known(module: str) -> bool:
    return module.partition(".")[0] in _KNOWN


def _is_transformers(kind: type) -> bool:
    return kind.__module__.startswith("transformers.models.") and kind.__module__ in sys.modules


def _library(module: str) -> bool:
    return _known(module) or module.partition(".")[0] in sys.stdlib_module_names
