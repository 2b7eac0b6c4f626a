"""Stored tensors that a model computes by itself: masks and tables, compared with its own.

Older versions of `transformers` stored them, newer ones do not read them. One with other values
than the class computes is that of another model: of another `rope_theta`, say, or of attention that
is not causal.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from accelerate.utils import align_module_device
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from headsurgeon.errors import ModelError
from headsurgeon.models.stored import StoredTensor

# at the most, what is added to a score to mask it: exp of it is 0 in fp32
_MASKED = -1e3
# tables that were computed on another machine differ by more than a rounding
_FP32_APART = 1e-5


class _Kind(NamedTuple):
    """A tensor by its name and number of axes, and whether its values are those of the model."""

    name: re.Pattern[str]
    axes: set[int]
    expected: str
    agrees: Callable[[Tensor, PreTrainedModel], bool]


def is_recomputed(name: str, tensor: StoredTensor) -> bool:
    """Whether a stored tensor is, by name and number of axes, a mask or table as models compute."""
    return _kind(name, tensor) is not None


def check_recomputed(spec: str, tensors: Iterable[StoredTensor], model: PreTrainedModel) -> None:
    """Refuses masks and tables with other values than the model computes, beyond rounding.

    Args:
        spec: what was loaded, for the message.
        tensors: those of the checkpoint that `is_recomputed` and that the model does not read.
        model: what it was loaded into.

    Raises:
        ModelError: one of them differs; names it.
    """
    for tensor in tensors:
        kind = _kind(tensor.name, tensor)
        if kind is not None and not kind.agrees(tensor.read(), model):
            raise ModelError(
                f"{spec}: {tensor.name} is stored with other values than {kind.expected}, which "
                f"{type(model).__name__} computes in its place, so another model would be measured "
                "than the one stored; check config.json (architecture, rope_theta, rope_scaling), "
                "or remove this tensor from the checkpoint if it is the one that is wrong"
            )


def _kind(name: str, tensor: StoredTensor) -> _Kind | None:
    fitting = (k for k in _KINDS if k.name.search(name) and len(tensor.shape) in k.axes)
    return next(fitting, None)


def _is_causal(mask: Tensor, model: PreTrainedModel) -> bool:
    rows, columns = mask.shape[-2:]
    causal = torch.ones(rows, columns).tril_()
    return rows == columns and torch.equal(mask.to(torch.float32), causal.expand(mask.shape))


def _masks(score: Tensor, model: PreTrainedModel) -> bool:
    return bool((score.to(torch.float32) <= _MASKED).all())


def _counts(positions: Tensor, model: PreTrainedModel) -> bool:
    # in their own precision: fp16 does not tell 2049 from 2048
    counted = torch.arange(positions.shape[-1]).to(positions.dtype)
    return torch.equal(positions, counted.expand(positions.shape))


def _is_rotary(table: Tensor, model: PreTrainedModel) -> bool:
    if not table.is_floating_point() or table.element_size() < 2:
        return False
    precision = torch.finfo(table.dtype)
    relative = max(2 * precision.eps, _FP32_APART)
    smallest = precision.smallest_normal * precision.eps
    values = table.to(torch.float64)
    return any(
        own.shape == values.shape
        and torch.allclose(own.to(torch.float64), values, rtol=relative, atol=smallest)
        for own in _rotary_tables(model)
    )


def _rotary_tables(model: PreTrainedModel) -> Iterator[Tensor]:
    factors = _linear_factors(model.config.get_text_config())
    for module in model.modules():
        with align_module_device(module):
            for name, buffer in module.named_buffers(recurse=False):
                if name.endswith("inv_freq") and not buffer.is_meta:
                    own = buffer.detach().to("cpu")
                    # versions that stored it scaled the positions in place of the table
                    yield from (own, *(own * factor for factor in factors))


def _linear_factors(config: PretrainedConfig) -> list[float]:
    """The factors of linear scaling that a configuration names, for all layers or by their type."""
    scaling: Any = getattr(config, "rope_parameters", None) or {}
    each = [scaling, *scaling.values()]
    named = [one for one in each if isinstance(one, dict) and one.get("rope_type") == "linear"]
    return [float(one["factor"]) for one in named]


_KINDS = (
    _Kind(re.compile(r"(^|\.)(attn|attention)\.bias$"), {4}, "those of a causal mask", _is_causal),
    _Kind(
        re.compile(r"(^|\.)(attn|attention)\.masked_bias$"),
        {0, 1},
        "a number that masks a score, such as -10000",
        _masks,
    ),
    _Kind(re.compile(r"(^|\.)inv_freq$"), {1}, "the rotary frequencies", _is_rotary),
    _Kind(re.compile(r"(^|\.)position_ids$"), {1, 2}, "0, 1, 2, …", _counts),
)
