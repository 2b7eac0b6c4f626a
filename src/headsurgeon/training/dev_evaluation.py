"""Evaluation during training: loss on dev text and the state of the heads, leaving no trace."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from torch import no_grad

from headsurgeon.attention.choice import attending
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data import Windows
from headsurgeon.diagnosis import classify
from headsurgeon.errors import OperationError
from headsurgeon.measurement import measure
from headsurgeon.models.forward import batches, evaluating, usual_defaults
from headsurgeon.models.loss import token_nll
from headsurgeon.operation.learner import Learner


@dataclass(frozen=True)
class DevResult:
    """What one evaluation found.

    Attributes:
        dev_loss: mean loss on the dev windows, nats per predicted token.
        healthy: heads of the whole model with the verdict healthy; None if not measured.
        healthy_operated: of the operated ones.
        first_token_mass: mean mass on position 0 over the operated heads, fraction.
    """

    dev_loss: float
    healthy: int | None
    healthy_operated: int | None
    first_token_mass: float | None


@usual_defaults()
def evaluate_dev(
    learner: Learner,
    dev: Windows,
    statistics_windows: int,
    computing: AbstractContextManager[Any],
    attention: AttentionChoice = "auto",
) -> DevResult:
    """Loss on all dev windows, and statistics of all heads on the first few of them.

    `attention` is what loss and statistics take; `auto` is, in 16 bit, the attention of the model
    that will run, not that of training.

    Raises:
        OperationError: the loss is not finite.
    """
    model = learner.model
    total = count = 0.0
    with no_grad(), evaluating(model), attending(model, attention), computing:
        for batch in batches(dev.tokens):
            losses = token_nll(model, batch.to(model.device)).cpu().double()
            total, count = total + float(losses.sum()), count + losses.numel()
    if not isfinite(total):
        raise OperationError(
            "the loss on dev text is not finite; start anew with a lower learning rate"
        )
    if statistics_windows == 0:
        return DevResult(total / count, None, None, None)
    stats = measure(model, dev.take(statistics_windows), attention=attention)
    healthy = (
        classify(stats.first_token_mass, stats.entropy, learner.plan.limits, stats.attends)
        == "healthy"
    )
    layers, heads = np.array(learner.plan.operated).T
    return DevResult(
        dev_loss=total / count,
        healthy=int(healthy.sum()),
        healthy_operated=int(healthy[layers, heads].sum()),
        first_token_mass=float(stats.first_token_mass[layers, heads].mean()),
    )
