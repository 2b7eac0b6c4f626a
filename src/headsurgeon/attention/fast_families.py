"""The families whose attention can run without maps, and what their modules do besides attention.

Layouts say where heads lie and which bias they get; what else such a module does stands here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig


@dataclass(frozen=True)
class FastFamily:
    """What a family's attention module does besides attention.

    Attributes:
        dropout: the configured attention dropout.
        finish: from (module, projected output, arguments after the hidden state) to what the
            module returns first.
    """

    dropout: Callable[[PretrainedConfig], float]
    finish: Callable[[nn.Module, Tensor, tuple[Any, ...], dict[str, Any]], Tensor]


def _plain(
    module: nn.Module, output: Tensor, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Tensor:
    return output


def _bloom_residual(
    module: nn.Module, output: Tensor, arguments: tuple[Any, ...], named: dict[str, Any]
) -> Tensor:
    # BLOOM's attention module adds the residual itself
    residual = arguments[0] if arguments else named["residual"]
    rate = float(module.hidden_dropout)  # type: ignore[arg-type]
    return torch.add(residual, functional.dropout(output, rate, module.training))


FAST_FAMILIES: dict[str, FastFamily] = {
    "bloom": FastFamily(lambda config: float(config.attention_dropout), _bloom_residual),
    "falcon": FastFamily(lambda config: float(config.attention_dropout), _plain),
    "mpt": FastFamily(lambda config: float(config.attn_config.attn_pdrop), _plain),
}
