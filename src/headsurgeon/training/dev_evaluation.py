"""Evaluation during training: loss on dev text and the state of the heads, leaving no trace."""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from torch import no_grad
from transformers import PreTrainedModel

from headsurgeon.attention.choice import attending
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data import Texts, Windows, equal_parts
from headsurgeon.diagnosis import classify
from headsurgeon.errors import OperationError, SettingsError
from headsurgeon.evaluation.head_drift import drift
from headsurgeon.head_stats import HeadStats
from headsurgeon.measurement import measure
from headsurgeon.models.forward import batches, evaluating, usual_defaults
from headsurgeon.models.token_loss import token_nll
from headsurgeon.operation.learner import Learner
from headsurgeon.training.contexts import computing
from headsurgeon.training.head_log import ZoneDrift, head_table, zone_drift
from headsurgeon.training.log import DEV, probe_key
from headsurgeon.training.settings import TrainSettings
from headsurgeon.training.untouched import untouched

MOST_PROBES = 32


@dataclass(frozen=True)
class DevResult:
    """What one evaluation found.

    Attributes:
        dev_loss: mean loss on the dev windows, nats per predicted token.
        healthy: heads of the whole model with the verdict healthy; None if not measured.
        healthy_operated: of the operated ones.
        first_token_mass: mean mass on position 0 over the operated heads, fraction.
        heads: every head's statistics by name, [layer][head]; None if not measured.
        drift: by zone, how far heads are from the untouched model's; None if not measured.
        probes: mean loss on each probe text, nats per predicted token.
        document_losses: of each text (`dev`, and probes as `probe:NAME`) the mean loss of every
            document, nats per predicted token, in the order of `tokens_of_documents`.
    """

    dev_loss: float
    healthy: int | None
    healthy_operated: int | None
    first_token_mass: float | None
    heads: dict[str, list[list[float | None]]] | None
    drift: dict[str, ZoneDrift] | None
    probes: dict[str, float]
    document_losses: dict[str, list[float]]


def check_probes(probes: Mapping[str, Windows | Texts]) -> dict[str, Windows | Texts]:
    """The probes, if there are few and their names are short words.

    Raises:
        SettingsError: more than 32, or a name that is something else.
    """
    wrong = [name for name in probes if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name)]
    if wrong or len(probes) > MOST_PROBES:
        raise SettingsError(
            f"expected at most {MOST_PROBES} probes with names of letters, digits, '.', '_' and "
            f"'-', got {len(probes)}" + (f", one of them {wrong[0][:80]!r}" if wrong else "")
        )
    return dict(probes)


class DevEvaluation:
    """What a run is evaluated on, the same at every step, and how the untouched model does there.

    Made before training, while what is trained has the precision that it was given; the learner is
    left as it was.

    Attributes:
        untouched: what the evaluation finds on the model before the operation.
        document_tokens: of each text, the predicted tokens of every document.
    """

    def __init__(
        self,
        learner: Learner,
        dev: Windows,
        settings: TrainSettings,
        probes: Mapping[str, Windows | Texts],
    ) -> None:
        self._learner = learner
        self._dev = dev
        self._settings = settings
        self._probes = probes
        self._before: HeadStats | None = None
        self.document_tokens = {
            name: list(tokens_of_documents(text).values())
            for name, text in _texts(dev, probes).items()
        }
        with untouched(learner):
            self.untouched, self._before = self._evaluate()

    def evaluate(self) -> DevResult:
        """Evaluates the learner as it is.

        Raises:
            OperationError: a loss is not finite.
        """
        return self._evaluate()[0]

    def _evaluate(self) -> tuple[DevResult, HeadStats | None]:
        return evaluate_dev(
            self._learner,
            self._dev,
            self._settings.statistics_windows,
            computing(self._learner.model, self._settings),
            # a kernel that trains may still lack the log-sum-exp that measuring needs
            "stock" if self._settings.attention == "stock" else "auto",
            self._probes,
            self._before,
        )


@usual_defaults()
def evaluate_dev(
    learner: Learner,
    dev: Windows,
    statistics_windows: int,
    computing: AbstractContextManager[Any],
    attention: AttentionChoice = "auto",
    probes: Mapping[str, Windows | Texts] | None = None,
    before: HeadStats | None = None,
) -> tuple[DevResult, HeadStats | None]:
    """Loss on all dev windows and probes, and statistics of all heads on the first dev windows.

    `attention` is what loss and statistics take; `auto` is, in 16 bit, the attention of the model
    that will run, not that of training. `before` is what drift is counted from.

    Returns:
        What was found, and the statistics themselves.

    Raises:
        OperationError: a loss is not finite.
    """
    model = learner.model
    with no_grad(), evaluating(model), attending(model, attention), computing:
        dev_loss, of_documents = _losses(model, dev, "dev text")
        losses, found_on = {}, {DEV: of_documents}
        for name, windows in (probes or {}).items():
            losses[name], found_on[probe_key(name)] = _losses(model, windows, f"the probe {name!r}")
    if statistics_windows == 0:
        return DevResult(dev_loss, None, None, None, None, None, losses, found_on), None
    stats = measure(model, dev.take(statistics_windows), attention=attention)
    healthy = (
        classify(stats.first_token_mass, stats.entropy, learner.plan.limits, stats.attends)
        == "healthy"
    )
    layers, heads = np.array(learner.plan.operated).T
    result = DevResult(
        dev_loss=dev_loss,
        healthy=int(healthy.sum()),
        healthy_operated=int(healthy[layers, heads].sum()),
        first_token_mass=float(stats.first_token_mass[layers, heads].mean()),
        heads=head_table(stats),
        drift=None if before is None else _drift(before, stats, learner),
        probes=losses,
        document_losses=found_on,
    )
    return result, stats


def _drift(before: HeadStats, stats: HeadStats, learner: Learner) -> dict[str, ZoneDrift]:
    # where no single heads are trained, there is none that cannot change
    confined = bool(learner.head_tensors())
    return zone_drift(drift(before, stats, learner.plan), confined)


def _losses(
    model: PreTrainedModel, windows: Windows | Texts, text: str
) -> tuple[float, list[float]]:
    """Mean loss of a text and of each of its documents (to six digits), nats per predicted token.

    Raises:
        OperationError: it is not finite.
    """
    total = count = 0.0
    tokens = tokens_of_documents(windows)
    sums = dict.fromkeys(tokens, 0.0)
    for part in equal_parts(windows):
        of_windows = []
        for batch in batches(part.tokens):
            losses = token_nll(model, batch.to(model.device)).cpu().double()
            total, count = total + float(losses.sum()), count + losses.numel()
            of_windows.append(losses.sum(-1).numpy())
        for name, loss in zip(part.documents, np.concatenate(of_windows), strict=True):
            sums[name] += float(loss)
    if not isfinite(total):
        raise OperationError(
            f"the loss on {text} is not finite; start over with a lower learning rate"
        )
    return total / count, [round(sums[name] / number, 6) for name, number in tokens.items()]


def tokens_of_documents(windows: Windows | Texts) -> dict[str, int]:
    """Predicted tokens of each document, in order of first appearance, short texts first."""
    counts: Counter[str] = Counter()
    for part in equal_parts(windows):
        for name in part.documents:
            counts[name] += part.length - 1
    return dict(counts)


def _texts(dev: Windows, probes: Mapping[str, Windows | Texts]) -> dict[str, Windows | Texts]:
    named: dict[str, Windows | Texts] = {probe_key(name): text for name, text in probes.items()}
    return {DEV: dev} | named
