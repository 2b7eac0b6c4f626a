"""What ablating heads costs: an estimate for each head, the loss itself for a set of heads.

What a set costs takes a forward pass without it (`ablation.ablating`); for all heads at once,
screening estimates what each would cost alone (`screening`). The layers below the lowest ablated
head are run once and not again.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import get_args

import numpy as np
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.arguments import checked
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data import Texts, Windows, equal_parts
from headsurgeon.errors import SettingsError
from headsurgeon.evaluation.ablation import ablating, mean_outputs
from headsurgeon.evaluation.document_loss import evaluate
from headsurgeon.evaluation.lower_layers import LowerLayers
from headsurgeon.evaluation.screening import screen_windows, why_not_screened
from headsurgeon.heads import HeadId
from headsurgeon.models.forward import OnWindows, usual_defaults
from headsurgeon.planning import AblationMode, Costs
from headsurgeon.scores import Estimate, Evaluation, difference


class AblationCost:
    """A function from a set of heads to what ablating them together costs, nats per token.

    Made by `ablation_cost`. The model must stay as it is.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        windows: Windows | Texts | Tensor,
        estimated_on: Windows | Texts | Tensor | None,
        mode: AblationMode,
        batch_size: int | None,
        attention: AttentionChoice,
        on_windows: OnWindows | None,
    ) -> None:
        self._model, self._windows, self._mode = model, windows, mode
        self._layout = layout_of(model)
        self._estimated_on = None if estimated_on is None else equal_parts(estimated_on)
        self._batch_size, self._attention = batch_size, attention
        self._on_windows = on_windows
        self._lower_layers = LowerLayers(model, self._layout)
        self._known: dict[frozenset[HeadId], Evaluation] = {}
        self._baseline = self._evaluated()

    def __call__(self, heads: Sequence[HeadId]) -> float:
        """What ablating the heads together costs, nats per token."""
        return self._without(heads).nll - self._baseline.nll

    def interval(self, heads: Sequence[HeadId]) -> Estimate:
        """The same with its interval over documents."""
        return difference(self._without(heads), self._baseline)

    @property
    def not_estimated(self) -> str | None:
        """Why there are no estimates, in words; None where there are."""
        if self._estimated_on is None:
            return "each head is to be ablated by itself"
        return why_not_screened(self._model)

    def estimates(self, heads: Sequence[HeadId]) -> Mapping[HeadId, float]:
        """Roughly what ablating each of the heads alone costs, nats per token.

        Raises:
            SettingsError: there are none; see `not_estimated`.
            ModelError: a gradient is not a finite number.
        """
        if self.not_estimated is not None or self._estimated_on is None:
            raise SettingsError(f"no cost can be estimated: {self.not_estimated}")
        with usual_defaults():
            screening = screen_windows(
                self._model,
                self._layout,
                self._estimated_on,
                lowest=min((head.layer for head in heads), default=0),
                batch_size=self._batch_size,
                attention=self._attention,
                on_windows=self._on_windows,
            )
        costs = screening.costs(self._mode)
        return {head: float(costs[head]) for head in heads}

    def _without(self, heads: Sequence[HeadId]) -> Evaluation:
        asked = frozenset(heads)
        if asked not in self._known:
            self._known[asked] = self._ablated(heads)
        return self._known[asked]

    def _ablated(self, heads: Sequence[HeadId]) -> Evaluation:
        lowest = min((head.layer for head in heads), default=0)
        with (
            ablating(self._model, self._layout, heads, self._means),
            # heads that are asked about one by one come in the order of their layers
            self._lower_layers.below(lowest, rising=len(heads) == 1),
        ):
            return self._evaluated()

    def _evaluated(self) -> Evaluation:
        return evaluate(
            self._model,
            self._windows,
            batch_size=self._batch_size,
            attention=self._attention,
            on_windows=self._on_windows,
        )

    @cached_property
    def _means(self) -> Float[Tensor, "layer head width"] | None:
        if self._mode == "zero":
            return None
        with usual_defaults():
            return mean_outputs(
                self._model, self._layout, self._windows, self._batch_size, self._on_windows
            )


class HighestCost:
    """The cost on the text where it is highest: a head may work on one text alone."""

    def __init__(self, costs: Sequence[Costs]) -> None:
        self._costs = costs

    def __call__(self, heads: Sequence[HeadId]) -> float:
        """What ablating the heads together costs there, nats per token."""
        return max(cost(heads) for cost in self._costs)

    def interval(self, heads: Sequence[HeadId]) -> Estimate:
        """The same; its bounds are the highest of each text's."""
        intervals = [cost.interval(heads) for cost in self._costs]
        numbers = np.array([[each.value, each.low, each.high] for each in intervals])
        return Estimate(*map(float, numbers.max(axis=0)))

    @property
    def not_estimated(self) -> str | None:
        """Why there are no estimates."""
        return next((cost.not_estimated for cost in self._costs if cost.not_estimated), None)

    def estimates(self, heads: Sequence[HeadId]) -> Mapping[HeadId, float]:
        """Roughly what ablating each head alone costs, on the text where that is highest."""
        of_texts = [cost.estimates(heads) for cost in self._costs]
        return {head: max(each[head] for each in of_texts) for head in heads}


def for_costs(windows: Windows | Texts, count: int) -> tuple[Windows | Texts, Windows | Texts]:
    """What costs are measured on, the first windows, and what they are estimated on: the others.

    Heads chosen by estimates are then measured on text that did not choose them. Where no other
    windows are left, and with given texts, both are the same.
    """
    if isinstance(windows, Texts) or len(windows) < 2:
        return windows, windows
    measured = min(count, (len(windows) + 1) // 2)
    return windows.take(measured), windows.skip(measured)


@checked
def ablation_cost(
    model: PreTrainedModel,
    windows: Windows | Texts | Tensor,
    *,
    estimated_on: Windows | Texts | Tensor | None = None,
    singles: bool = False,
    mode: AblationMode = "zero",
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> AblationCost:
    """A function from a set of heads to what ablating them together costs, nats per token.

    `plan(cost=…)` writes its costs with it and rule `idle` chooses by it: what each head alone
    costs is estimated for all heads at once (`evaluation.screening`), what sets of them cost is
    measured. The unablated loss is computed once, and the layers below the lowest ablated head are
    not run again for the next set. So the model must stay as it is.

    Args:
        windows: what costs are measured on.
        estimated_on: what they are estimated on; by default `windows`. Other text of the same kind
            makes the joint cost of heads that were chosen by estimates one on unseen text.
        singles: whether each head is ablated by itself instead, one forward pass per head. Where
            no gradient can flow through the model (some quantised ones) that is done anyway.
        mode: `zero` removes a head's output, `mean` replaces it by its average over the windows.
        batch_size: windows per forward pass; by default about 4,096 tokens.
        attention: as for `evaluate`.
        on_windows: as for `evaluate`, now and whenever a cost is asked for; each window of an
            estimate counts three times, which is about what it takes.

    Raises:
        SettingsError: another mode.
    """
    if mode not in get_args(AblationMode):
        raise SettingsError(f"expected to ablate by zero or mean, got {mode!r}")
    text = None if singles else windows if estimated_on is None else estimated_on
    return AblationCost(model, windows, text, mode, batch_size, attention, on_windows)
