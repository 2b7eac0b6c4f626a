"""What a start works on: the slices of each operated head of one layer, as writable views."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from headsurgeon.arch import Layout
from headsurgeon.arch.layout import Part
from headsurgeon.errors import StateError
from headsurgeon.heads import HeadId
from headsurgeon.starts.calibration import Calibration


@dataclass(frozen=True)
class HeadTensors:
    """The slices of one head as views, which writing changes: what a start works on.

    Whatever the model's axis order, the views are oriented as in `nn.Linear`.

    Attributes:
        id: the head.
        weights: `query`, `key`, `value` [head_dim, hidden] and `output` [hidden, head_dim]; keys
            and values only where this head is the one that starts them for its group.
        biases: of `query`, `key`, `value` [head_dim], where the family has them.
        output_bias: of the layer's output projection [hidden], one for all its heads; None unless
            the output start asks for it (`Start.output_bias`).
    """

    id: HeadId
    weights: dict[Part, Tensor]
    biases: dict[Part, Tensor]
    output_bias: Tensor | None = None


@dataclass(frozen=True)
class StartContext:
    """What a start may know beside the heads.

    Attributes:
        layout: where the model's heads live; its widths and scales.
        layer: the layer whose heads are started.
        generator: source of randomness of Q, K and V, on the CPU: each start that draws whole
            blocks draws the same ones for a seed, so that arms are paired.
        noise: source of any other randomness, on the CPU.
        other: gives one of the layer's heads that are not operated on, by its index: a copy of all
            four parts in fp32, whoever shares its keys and values. It raises `HeadError` for any
            other head.
        calibration: what the model shows on calibration windows; None unless the start asks for it.
    """

    layout: Layout
    layer: int
    generator: torch.Generator
    noise: torch.Generator
    other: Callable[[int], HeadTensors]
    calibration: Calibration | None = None

    @property
    def seen(self) -> Calibration:
        """The calibration, for starts that declared that they need one.

        Raises:
            StateError: the start is not entered as one that looks at calibration windows.
        """
        if self.calibration is None:
            raise StateError(
                "a start looks at calibration windows without saying so; enter it with "
                "calibrated=True"
            )
        return self.calibration
