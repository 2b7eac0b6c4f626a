"""Corpora taken in turn by weight: the same order for everybody, balanced in every prefix."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import repeat
from math import lcm


def turns(weights: Sequence[Fraction]) -> Iterator[int]:
    """Whose turn it is, without end.

    After any number n of turns each has had n·share of them to within 1 − 1/(2k − 2) for k weights,
    the best bound there is (Tijdeman 1980, "The chairman assignment problem", Discrete Mathematics
    32). Nothing is drawn, so the order depends on the weights alone.

    Args:
        weights: positive, relative to each other.
    """
    if len(weights) == 1:
        yield from repeat(0)
    # in whole numbers, which are exact and fast: one turn is worth `one_turn`
    scale = lcm(*(weight.denominator for weight in weights))
    per_turn = [int(weight * scale) * (2 * len(weights) - 2) for weight in weights]
    one_turn = sum(per_turn)
    slack = one_turn // (2 * len(weights) - 2)
    patience = [lcm(*per_turn) // income for income in per_turn]
    owed = [0] * len(weights)
    while True:
        owed = [due + income for due, income in zip(owed, per_turn, strict=True)]
        # of those that may be served already, the one that cannot wait longest
        turn = min(
            (index for index, due in enumerate(owed) if due >= slack),
            key=lambda index: (one_turn - slack - owed[index]) * patience[index],
        )
        owed[turn] -= one_turn
        yield turn
