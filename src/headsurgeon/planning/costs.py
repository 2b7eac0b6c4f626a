"""What rules ask about the cost of ablating heads; measured in `evaluation.ablation_costs`."""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Protocol, runtime_checkable

from headsurgeon.errors import PlanError
from headsurgeon.heads import HeadId
from headsurgeon.scores import Estimate

Cost = Callable[[Sequence[HeadId]], float]
"""Loss that ablating a set of heads together costs, nats per token."""


@runtime_checkable
class Costs(Protocol):
    """A `Cost` that also knows how sure it is, and estimates many heads at once."""

    def __call__(self, heads: Sequence[HeadId]) -> float:
        """Loss that ablating the heads together costs, nats per token."""
        ...

    def interval(self, heads: Sequence[HeadId]) -> Estimate:
        """The same with its interval over documents; NaN bounds where there is none."""
        ...

    @property
    def not_estimated(self) -> str | None:
        """Why heads can only be ablated one by one, in words; None where there are estimates."""
        ...

    def estimates(self, heads: Sequence[HeadId]) -> Mapping[HeadId, float]:
        """Roughly what ablating each of the heads alone costs, nats per token."""
        ...


class PlainCosts:
    """A function as `Costs`: without intervals, and without estimates."""

    not_estimated = "the cost is given as a function"

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._known: dict[tuple[HeadId, ...], float] = {}

    def __call__(self, heads: Sequence[HeadId]) -> float:
        """What the function says; of the same heads it is asked once."""
        asked = tuple(heads)
        if asked not in self._known:
            self._known[asked] = self._cost(heads)
        return self._known[asked]

    def interval(self, heads: Sequence[HeadId]) -> Estimate:
        """What the function says, without bounds."""
        return Estimate(self(heads), nan, nan)

    def estimates(self, heads: Sequence[HeadId]) -> Mapping[HeadId, float]:
        """Raises PlanError: a function has none."""
        raise PlanError(self.not_estimated)
