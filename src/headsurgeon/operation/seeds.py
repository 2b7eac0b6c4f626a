"""Which seeds there are."""

from headsurgeon.errors import SettingsError
from headsurgeon.records import HIGHEST_SEED


def check_seed(seed: object) -> int:
    """The seed, if it is one.

    Raises:
        SettingsError: not a whole number from 0 to 2⁶³ - 1, what a plan can hold.
    """
    try:
        number = None if isinstance(seed, bool) else seed.__index__()  # type: ignore[attr-defined]
    except AttributeError:
        number = None
    if number is None or not 0 <= number <= HIGHEST_SEED:
        # thousands of digits cannot be shown
        got = type(seed).__name__ if number is None else f"one of {number.bit_length()} bits"
        if number is not None and number < 0:
            got = "one below 0"
        raise SettingsError(f"seed: expected a whole number from 0 to {HIGHEST_SEED}, got {got}")
    return int(number)
