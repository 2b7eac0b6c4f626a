"""As many heads as can be ablated together within a limit, found by bisection."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log2

import numpy as np

from headsurgeon.heads import HeadId
from headsurgeon.planning.costs import Costs
from headsurgeon.scores import Estimate

# how many heads are tried behind the one that did not fit
_TRIED_BEHIND = 2
# how often the estimates say where to look, before the middle halves what is left
_GUESSES = 2


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
    is measured by bisection, begun where the estimates say: of all beginnings of that order it
    finds the longest that keeps to the limit, as though the cost rose along it. The head at which
    it ends is left out, and the two behind it are tried. Where each head was ablated by itself,
    heads are tried one by one; that takes many more measurements.

    Args:
        limit: nats per token; the upper end of the joint cost's interval has to keep to it, or
            the cost itself where there is no interval.
    """
    if costs.not_estimated is not None:
        return _one_by_one(candidates, costs, limit)
    singles = costs.estimates(candidates)
    order = _cheapest_first(singles)
    row = _Row(order, [singles[head] for head in order], costs, limit)
    taken = longest(len(order), row.fits, row.guess)
    heads, cost = order[:taken], row.measured.get(taken)
    # not the one at which the beginning ended, but those behind it
    for head in order[taken + 1 :][:_TRIED_BEHIND]:
        if cost is not None and singles[head] > limit - upper(cost):
            break
        joint = costs.interval([*heads, head])
        if upper(joint) <= limit:
            heads, cost = [*heads, head], joint
    return IdleHeads(tuple(heads), cost, singles, True)


def longest(size: int, fits: Callable[[int], bool], guess: Callable[[], int]) -> int:
    """The longest beginning that fits, of a row in which all longer ones fail once one does.

    Args:
        size: of the row.
        fits: whether that many do; not asked about none, which do.
        guess: where to look at first; asked again, since what was measured improves it. Then the
            middle halves what is left.
    """
    fitting, failing = 0, size + 1
    turn = 0
    while failing - fitting > 1:
        probe = guess() if turn < _GUESSES else (fitting + failing) // 2
        probe = min(max(probe, fitting + 1), failing - 1)
        if fits(probe):
            fitting = probe
        else:
            failing = probe
        turn += 1
    return fitting


def expected_measurements(candidates: int, estimated: bool) -> int:
    """About how many sets of heads `find_idle` measures."""
    if estimated:
        return ceil(log2(candidates + 1)) + _TRIED_BEHIND
    return 2 * candidates


class _Row:
    """Heads in the order in which they may be ablated together."""

    def __init__(
        self, order: Sequence[HeadId], singles: Sequence[float], costs: Costs, limit: float
    ) -> None:
        self._order, self._costs, self._limit = order, costs, limit
        # heads that seem to do harm are not counted upon to make room for others
        self._expected = np.cumsum(np.maximum(singles, 0.0))
        # what the last measurement came to, of what was expected
        self._share = 1.0
        self.measured: dict[int, Estimate] = {}

    def fits(self, count: int) -> bool:
        """Whether the first `count` can be ablated together."""
        joint = self._costs.interval(self._order[:count])
        self.measured[count] = joint
        share = upper(joint) / max(float(self._expected[count - 1]), 1e-9)
        self._share = share if share > 0.0 else self._share
        return upper(joint) <= self._limit

    def guess(self) -> int:
        """How many fit, if the cost grows with what is expected."""
        return int(np.searchsorted(self._share * self._expected, self._limit, side="right"))


def upper(cost: Estimate) -> float:
    """What other text is unlikely to exceed: the upper end of its interval, where there is one."""
    return cost.high if isfinite(cost.high) else cost.value


def _one_by_one(candidates: Sequence[HeadId], costs: Costs, limit: float) -> IdleHeads:
    """Ends where a head alone costs more than is left; one that does so in the set is left out."""
    singles = {head: costs([head]) for head in candidates}
    heads: list[HeadId] = []
    cost: Estimate | None = None
    for head in _cheapest_first(singles):
        if singles[head] > limit - (0.0 if cost is None else upper(cost)):
            break
        joint = costs.interval([*heads, head])
        if upper(joint) <= limit:
            heads.append(head)
            cost = joint
    return IdleHeads(tuple(heads), cost, singles, False)


def _cheapest_first(singles: Mapping[HeadId, float]) -> list[HeadId]:
    """What is no number comes last."""
    return sorted(singles, key=lambda head: (np.nan_to_num(singles[head], nan=np.inf), head))
