"""What is written in an option as text: weights of corpora, sizes of memory, ranges."""

import re
from collections.abc import Sequence

from headsurgeon.errors import SettingsError

_LIMIT = re.compile(
    r"\s*(?:([a-z]+|[0-9]{1,4})=)?([0-9]{1,9}(?:\.[0-9]{1,9})?\s*[KMGT]i?B)\s*", re.IGNORECASE
)


def mixed_corpus(corpora: Sequence[str], weights: str | None) -> str:
    """The SPEC of several corpora with weights such as `2,1`.

    Raises:
        CorpusError: a corpus that is not of the form.
        SettingsError: weights that are no numbers, or not one per corpus.
    """
    from headsurgeon.data import mixture

    try:
        numbers = [float(part) for part in weights.split(",")] if weights else []
    except ValueError:
        raise SettingsError(
            f"--weights: expected a number per --corpus, such as 2,1, got {weights!r}"
        ) from None
    return mixture(corpora, numbers)


def memory_limits(text: str) -> dict[int | str, str]:
    """Reads `2GB`, which is for the CPU, or `0=20GB,cpu=8GB`.

    Raises:
        SettingsError: the text is neither.
    """
    limits: dict[int | str, str] = {}
    for part in text.split(","):
        match = _LIMIT.fullmatch(part)
        if match is None:
            raise SettingsError(
                f"--max-memory: expected a size such as 2GB, or 0=20GB,cpu=8GB, got {text!r}"
            )
        device = (match[1] or "cpu").lower()
        if device in ("cpu", "disk", "mps") or device.isdecimal():
            key: int | str = int(device) if device.isdecimal() else device
        else:
            raise SettingsError(
                f"--max-memory: no device {device!r}; name cpu, mps, or the number of a GPU"
            )
        if key in limits:
            raise SettingsError(f"--max-memory: {device} is given twice in {text!r}")
        limits[key] = match[2].replace(" ", "").upper()
    # as Accelerate spells them
    return {device: size.replace("IB", "iB") for device, size in limits.items()}


def first_last(text: str | None, name: str) -> tuple[int, int] | None:
    """Reads a range such as `9-15`, both ends included; a single number is a range of one.

    Raises:
        SettingsError: the text is not a range.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:[-–]\s*([0-9]{1,9})\s*)?", text)
    if match is None:
        raise SettingsError(f"{name}: expected a range such as 9-15, got {text!r}")
    return int(match[1]), int(match[2] or match[1])
