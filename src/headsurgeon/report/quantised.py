"""Series of numbers as short texts, which a page holds and its script reads back.

A series is whole numbers times a step. Each is written as its change from the one before in one
character, where it is small; heads that keep what they are take two characters for all moments.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float

# printable, and none that JSON or HTML would have to escape
ALPHABET = "".join(chr(code) for code in range(35, 127) if chr(code) not in "&'<>\\")
_BASE = len(ALPHABET)
# places in the alphabet beyond the small changes
_SMALL = 41
_WHOLE, _NONE, _SAME = 2 * _SMALL + 1, 2 * _SMALL + 2, 2 * _SMALL + 3
_LARGEST = _BASE**2 - 1


@dataclass(frozen=True)
class Packed:
    """A packed series: value = low + step × whole number, heads one after the other.

    `text` holds for each head all its moments; see the module.
    """

    low: float
    step: float
    text: str


def pack(
    values: Float[np.ndarray, "moment head"], step: float, limits: tuple[float, ...] = ()
) -> Packed:
    """Packs values to the nearest `step`, or a coarser one where their range is too wide.

    Args:
        values: NaN and infinite numbers are kept as "none".
        step: distance of neighbouring values.
        limits: thresholds that rounding must not cross, so that a page judges as the results do: a
            value above one stays above it, all others do not exceed it.
    """
    known = values[np.isfinite(values)]
    low = math.floor(float(known.min()) / step) * step if known.size else 0.0
    while known.size and (float(known.max()) - low) / step > _LARGEST - 1:
        step *= 10.0
        low = math.floor(float(known.min()) / step) * step
    # + 0.0: no "−0"
    low = round(low, 12) + 0.0
    with np.errstate(invalid="ignore"):
        whole = np.rint((values - low) / step)
        for limit in limits:
            # as the script computes them back
            shown = np.round(low + step * whole, 9)
            whole += (values > limit) & (shown <= limit)
            whole -= (values <= limit) & (shown > limit)
    return Packed(low, step, "".join(_series(column) for column in whole.T.tolist()))


def unpack(packed: Packed, moments: int) -> Float[np.ndarray, "moment head"]:
    """What the page's script makes of it: the values, rounded; NaN where there was none."""
    places = [ALPHABET.index(character) for character in packed.text]
    found: list[float] = []
    at, last = 0, 0
    while at < len(places):
        place = places[at]
        if place == _WHOLE:
            last = places[at + 1] * _BASE + places[at + 2]
            found.append(last)
            at += 3
        elif place == _SAME:
            found += [found[-1]] * (places[at + 1] + 1)
            at += 2
        else:
            last += place - _SMALL if place != _NONE else 0
            found.append(math.nan if place == _NONE else last)
            at += 1
    whole = np.array(found, dtype=np.float64).reshape(-1, moments).T
    return np.asarray(packed.low + packed.step * whole)


def _series(values: Iterable[float]) -> str:
    """The moments of one head."""
    written: list[str] = []
    known: int | None = None
    for value, run in groupby(int(value) if math.isfinite(value) else None for value in values):
        if value is None:
            written.append(ALPHABET[_NONE])
        elif known is None or abs(value - known) > _SMALL:
            written.append(ALPHABET[_WHOLE] + ALPHABET[value // _BASE] + ALPHABET[value % _BASE])
        else:
            written.append(ALPHABET[value - known + _SMALL])
        known = known if value is None else value
        more = len(list(run)) - 1
        while more > 0:
            written.append(ALPHABET[_SAME] + ALPHABET[min(more, _BASE) - 1])
            more -= _BASE
    return "".join(written)
