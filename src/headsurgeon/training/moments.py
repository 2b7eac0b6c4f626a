"""Moments of a run by name: steps such as 40, passes over the training text such as `epoch:0.5`."""

import math
import re
from typing import Annotated, Any

from pydantic import BeforeValidator

LATEST = 2**31
# steps of a range such as 0-55 at most; more are no list that anyone meant
_LONGEST_RANGE = 100_000
_RANGE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")
_EPOCH = re.compile(r"epoch:([0-9]{1,7}(?:\.[0-9]{1,6})?)")


def as_step(value: Any) -> int:
    """A step, given as a whole number or in digits.

    Raises:
        ValueError: anything else; pydantic tells the user.
    """
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LATEST:
        raise ValueError("expected a step, a whole number from 0 up, or a pass such as epoch:3")
    return value


def as_moment(value: Any) -> int | str:
    """A step, or a pass such as `epoch:3`.

    Raises:
        ValueError: neither; pydantic tells the user.
    """
    match = _EPOCH.fullmatch(value) if isinstance(value, str) else None
    return as_step(value) if match is None else _pass(match)


def as_moments(value: Any) -> tuple[int | str, ...]:
    """Steps ascending, then passes ascending, each once; a text lists them between commas.

    A range such as `0-55` is all steps from the one to the other.

    Raises:
        ValueError: something that is neither a step nor `epoch:NUMBER`; pydantic tells the user.
    """
    items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("expected a list such as 0,5,10,epoch:1 or 0-55")
    steps: set[int] = set()
    epochs: set[float] = set()
    for item in items:
        match = _EPOCH.fullmatch(item) if isinstance(item, str) else None
        if match is not None:
            epochs.add(float(match[1]))
            continue
        between = _RANGE.fullmatch(item) if isinstance(item, str) else None
        if between is not None:
            steps.update(_range(int(between[1]), int(between[2])))
            continue
        try:
            steps.add(as_step(item))
        except ValueError:
            raise ValueError(
                f"expected steps from 0 up and passes such as epoch:1, got {str(item)[:40]!r}"
            ) from None
    return (*sorted(steps), *(f"epoch:{epoch:.15g}" for epoch in sorted(epochs)))


def _pass(match: re.Match[str]) -> str:
    return f"epoch:{float(match[1]):.15g}"


def _range(first: int, last: int) -> range:
    if not first <= last <= min(LATEST, first + _LONGEST_RANGE - 1):
        raise ValueError(
            f"expected a range that rises, of at most {_LONGEST_RANGE:,} steps, such as 0-55, got "
            f"{first}-{last}"
        )
    return range(first, last + 1)


def step_of(moment: int | str, windows: int, windows_per_step: int) -> int:
    """The step that a moment names: the last one that lies wholly within that many passes.

    It is counted as a budget in passes is, so `epoch:1` is the end of a run of one pass.

    Args:
        moment: a step or `epoch:NUMBER`.
        windows: of the training text.
        windows_per_step: read in an optimiser step.
    """
    if isinstance(moment, int):
        return moment
    return math.floor(float(moment.removeprefix("epoch:")) * windows / windows_per_step)


# what a field of settings that lists moments accepts
Moments = Annotated[tuple[int | str, ...], BeforeValidator(as_moments)]
