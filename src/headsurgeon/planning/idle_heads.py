"""As many heads as can be ablated together within a limit, found with few measurements."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log2

import numpy as np

from headsurgeon.heads import HeadId
from headsurgeon.planning.costs import Costs
from headsurgeon.scores import Estimate

# how many heads that do not fit are passed over before the search ends
_PASSED_OVER = 2


@dataclass(frozen=True)
class IdleHeads:
    """What was found.

    Attributes:
        heads: the set, in the order in which they were tried.
        cost: of ablating it together; None where no head fits.
        singles: what each candidate costs alone, nats per token.
        estimated: whether those are estimates.
    """

    heads: tuple[HeadId, ...]
    cost: Estimate | None
    singles: Mapping[HeadId, float]
    estimated: bool


def find_idle(candidates: Sequence[HeadId], costs: Costs, limit: float) -> IdleHeads:
    """The heads that can be ablated together for at most `limit`, the cheapest first.

    Heads are tried in the order of what each costs alone. Where that is estimated, the joint cost
    is measured by bisection: of all beginnings of that order it finds the longest that keeps to
    the limit, as though the cost rose along it. A head at which it ends is passed over, twice at
    most, and the search goes on behind it as long as the next head's estimate leaves room. Where
    each head was ablated by itself, heads are tried one by one; that takes many more measurements.

    Args:
        limit: nats per token; the upper end of the joint cost's interval has to keep to it, or
            the cost itself where there is no interval.
    """
    if costs.not_estimated is not None:
        return _one_by_one(candidates, costs, limit)
    singles = costs.estimates(candidates)
    order = _cheapest_first(singles)
    search = _Search(costs, limit)
    passed_over = 0
    while order and passed_over <= _PASSED_OVER:
        if passed_over and singles[order[0]] > limit - search.spent:
            break
        expected = np.cumsum([max(singles[head], 0.0) for head in order])
        guess = int(np.searchsorted(expected, limit - search.spent, side="right"))
        taken = longest(len(order), lambda count, order=order: search.fits(order[:count]), guess)
        search.take(order[:taken])
        order = order[taken + 1 :]
        passed_over += 1
    return IdleHeads(tuple(search.heads), search.cost, singles, True)


def longest(size: int, fits: Callable[[int], bool], guess: int) -> int:
    """The longest beginning that fits, of a row in which all longer ones fail once one does.

    Args:
        size: of the row.
        fits: whether that many do; not asked about none, which do.
        guess: where to look first.
    """
    fitting, failing = 0, size + 1
    probe = min(max(guess, 1), size)
    while failing - fitting > 1:
        if fits(probe):
            fitting = probe
        else:
            failing = probe
        probe = (fitting + failing) // 2
    return fitting


def expected_measurements(candidates: int, estimated: bool) -> int:
    """About how many sets of heads `find_idle` measures."""
    if estimated:
        return ceil(log2(candidates + 1)) + _PASSED_OVER
    return 2 * candidates


class _Search:
    """The heads taken so far, and whether more can be."""

    def __init__(self, costs: Costs, limit: float) -> None:
        self._costs, self._limit = costs, limit
        self.heads: list[HeadId] = []
        self.cost: Estimate | None = None
        self._measured: dict[int, Estimate] = {}

    @property
    def spent(self) -> float:
        """What is used up of the limit, nats per token."""
        return 0.0 if self.cost is None else upper(self.cost)

    def fits(self, further: Sequence[HeadId]) -> bool:
        """Whether these can be ablated besides."""
        found = self._costs.interval([*self.heads, *further])
        self._measured[len(further)] = found
        return upper(found) <= self._limit

    def take(self, further: Sequence[HeadId]) -> None:
        """Adds heads that were found to fit, if any."""
        if further:
            self.cost = self._measured[len(further)]
            self.heads += further
        self._measured = {}


def upper(cost: Estimate) -> float:
    """What it hardly exceeds on other text: the upper end of its interval, where it has one."""
    return cost.high if isfinite(cost.high) else cost.value


def _one_by_one(candidates: Sequence[HeadId], costs: Costs, limit: float) -> IdleHeads:
    """Ends where a head alone costs more than is left; one that does so in the set is left out."""
    singles = {head: costs([head]) for head in candidates}
    search = _Search(costs, limit)
    for head in _cheapest_first(singles):
        if singles[head] > limit - search.spent:
            break
        if search.fits([head]):
            search.take([head])
    return IdleHeads(tuple(search.heads), search.cost, singles, False)


def _cheapest_first(singles: Mapping[HeadId, float]) -> list[HeadId]:
    """What is no number comes last."""
    return sorted(singles, key=lambda head: (np.nan_to_num(singles[head], nan=np.inf), head))
