"""What a run reports after every step."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class StepEvent:
    """What `on_step` receives after every step.

    Attributes:
        step, steps: steps completed, and of the whole run.
        loss: mean loss on the step's windows, nats per predicted token.
        learning_rate: the step's rate.
        gradient_norm: norm over all slices before clipping.
        tokens: tokens read so far.
        tokens_per_second: since this process started, evaluations included.
        seconds_left: at that speed.
        dev_loss, healthy: what the last evaluation found; None before the first one.
        heads: heads in the whole model, for comparison with `healthy`.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    tokens_per_second: float
    seconds_left: float
    dev_loss: float | None
    healthy: int | None
    heads: int


OnStep = Callable[[StepEvent], None]
