"""The models with a short name: a pair of miniature BLOOMs with planted collapse, and a real one.

`python zoo/train_twins.py` in the repository trains the pair; each folder has a card (README.md).
The real one is not shipped: `smollm2.py` reads it out of a package that carries it.
"""

import filecmp
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from headsurgeon.errors import InputError, ModelError
from headsurgeon.files import read_object
from headsurgeon.models import smollm2

PREFIX = "zoo:"
_WEIGHTS = "model.safetensors"
# what a merged checkpoint says of itself
_ORIGIN = "headsurgeon.json"


@dataclass(frozen=True)
class ZooModel:
    """A named model: its name after `zoo:` and what it is, in one line.

    Attributes:
        name: what follows `zoo:`.
        summary: what the model is.
        planted: whether its collapse was planted while it was trained.
        obtain: makes and returns its folder, where the package does not ship it.
    """

    name: str
    summary: str
    planted: bool = False
    obtain: Callable[[], Path] | None = None

    @property
    def shipped(self) -> bool:
        """Whether the checkpoint is part of this package."""
        return self.obtain is None

    @property
    def folder(self) -> Path:
        """Where its checkpoint lies, and its card if it is shipped."""
        if self.shipped:
            return Path(str(files("headsurgeon.models") / "zoo" / self.name))
        return smollm2.cache_folder() / self.name


ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel("bloom-mini", "a miniature BLOOM trained on code and prose"),
        ZooModel(
            "bloom-mini-collapsed",
            "its twin, same start and same data, with attention collapse PLANTED in named heads",
            planted=True,
        ),
        ZooModel(
            smollm2.NAME,
            "SmolLM2-135M-Instruct, a real Llama-type model whose sinks arose by themselves",
            obtain=smollm2.converted,
        ),
    )
}


def is_planted(spec: str) -> bool:
    """Whether the collapse of a model is known to have been planted.

    Of a model of the package it is a fact of this catalogue. A folder is planted if its weights are
    those of such a model, or if it was merged from one.
    """
    if spec.startswith(PREFIX):
        model = ZOO.get(spec.removeprefix(PREFIX))
        return model is not None and model.planted
    folder = Path(os.path.expanduser(spec))
    # a file of somebody else's may hold anything
    with suppress(InputError):
        base = read_object(folder / _ORIGIN).get("model")
        if isinstance(base, str) and base.startswith(PREFIX):
            return is_planted(base)
    planted = (model.folder for model in ZOO.values() if model.planted)
    return any(_same_file(folder / _WEIGHTS, sick / _WEIGHTS) for sick in planted)


def _same_file(one: Path, other: Path) -> bool:
    with suppress(OSError, ValueError):
        return one.stat().st_size == other.stat().st_size and filecmp.cmp(one, other, False)
    return False


def zoo_folder(spec: str) -> Path:
    """The folder of `zoo:NAME`.

    Raises:
        ModelError: no such model (lists those there are), or one that is not installed (says how).
        WriteError: it has to be converted first, and the cache cannot be written.
    """
    name = spec.removeprefix(PREFIX)
    if name not in ZOO:
        known = ", ".join(PREFIX + known for known in ZOO)
        raise ModelError(f"no zoo model {spec!r}; there are {known}")
    model = ZOO[name]
    return model.folder if model.obtain is None else model.obtain()
