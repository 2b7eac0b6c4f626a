"""Colour scales of pages and notebooks, as stops between which colours are mixed; no matplotlib.

They are those of the figures: magma for shares, so that grey print keeps the order, and red–blue
for changes, which differ for every common colour deficiency.
"""

from collections.abc import Sequence

# magma, reversed: the more, the darker (Nathaniel Smith and Stéfan van der Walt)
SEQUENTIAL = (
    *("#fcfdbf", "#fecf92", "#fe9f6d", "#f7705c", "#de4968", "#b5367a"),
    *("#8c2981", "#641a80", "#3b0f70", "#140e36", "#000004"),
)
# ColorBrewer's RdBu, reversed: blue is less, red is more
DIVERGING = (
    *("#053061", "#2a71b2", "#6bacd1", "#c2ddec", "#f7f6f6"),
    *("#fbccb4", "#e48066", "#ba2832", "#67001f"),
)
# the same on a dark ground, where no change is dark
DIVERGING_DARK = (
    *("#9fd3ff", "#5fa8e0", "#3576ab", "#243f5c", "#23262e"),
    *("#573328", "#a3563d", "#e07f5a", "#ffbd9e"),
)
# around heads that are operated on, and where a head becomes sick
OPERATED = "#00a6d6"
# a head that has no such number
NOTHING = "#d9dce3"
# luma below which white letters are read more easily
_DARK = 0.5


def colour(share: float, stops: Sequence[str] = SEQUENTIAL) -> str:
    """The colour `share` of the way along a scale, as `#rrggbb`; beyond the ends it is the end's.

    Args:
        share: place on the scale, 0 to 1; NaN is grey.
        stops: colours at equal distances.
    """
    if share != share:
        return NOTHING
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    below = min(int(place), len(stops) - 2)
    mixed = (
        round(low + (place - below) * (high - low))
        for low, high in zip(_rgb(stops[below]), _rgb(stops[below + 1]), strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixed)


def ink_on(background: str) -> str:
    """The colour, of white and a dark one, in which letters can be read on a background."""
    red, green, blue = (part / 255 for part in _rgb(background))
    return "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < _DARK else "#1f2430"


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
