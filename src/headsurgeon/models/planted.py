"""Whether a model is one that this package made sick; found without torch, also by pages."""

import filecmp
import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from headsurgeon.errors import InputError
from headsurgeon.files import read_object

PREFIX = "zoo:"
# shipped models whose collapse was planted while they were trained
PLANTED = ("bloom-mini-collapsed",)
_WEIGHTS = "model.safetensors"
# what a merged checkpoint says of itself
_ORIGIN = "headsurgeon.json"


def shipped_folder(name: str) -> Path:
    """Where the checkpoint of a shipped model lies, and its card."""
    return Path(str(files("headsurgeon.models") / "zoo" / name))


def is_planted(spec: str) -> bool:
    """Whether the collapse of a model is known to have been planted.

    Of a model of the package it is a fact. A folder is planted if its weights are those of such a
    model, or if it was merged from one.
    """
    if spec.startswith(PREFIX):
        return spec.removeprefix(PREFIX) in PLANTED
    folder = Path(os.path.expanduser(spec))
    # a file of somebody else's may hold anything
    with suppress(InputError):
        base = read_object(folder / _ORIGIN).get("model")
        if isinstance(base, str) and base.startswith(PREFIX):
            return is_planted(base)
    sick = (shipped_folder(name) for name in PLANTED)
    return any(_same_file(folder / _WEIGHTS, each / _WEIGHTS) for each in sick)


def _same_file(one: Path, other: Path) -> bool:
    with suppress(OSError, ValueError):
        return one.stat().st_size == other.stat().st_size and filecmp.cmp(one, other, False)
    return False
