"""The models with a short name: a pair of miniature BLOOMs with planted collapse, and a real one.

`python zoo/train_twins.py` in the repository trains the pair; each folder has a card (README.md).
The real one is not shipped: `smollm2.py` reads it out of a package that carries it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headsurgeon.errors import ModelError
from headsurgeon.models import smollm2
from headsurgeon.models.planted import PLANTED, PREFIX, shipped_folder


@dataclass(frozen=True)
class ZooModel:
    """A named model: its name after `zoo:` and what it is, in one line.

    Attributes:
        name: what follows `zoo:`.
        summary: what the model is.
        obtain: makes and returns its folder, where the package does not ship it.
    """

    name: str
    summary: str
    obtain: Callable[[], Path] | None = None

    @property
    def planted(self) -> bool:
        """Whether its collapse was planted while it was trained."""
        return self.name in PLANTED

    @property
    def shipped(self) -> bool:
        """Whether the checkpoint is part of this package."""
        return self.obtain is None

    @property
    def folder(self) -> Path:
        """Where its checkpoint lies, and its card if it is shipped."""
        if self.shipped:
            return shipped_folder(self.name)
        return smollm2.cache_folder() / self.name


ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel("bloom-mini", "a miniature BLOOM trained on code and prose"),
        ZooModel(
            "bloom-mini-collapsed",
            "its twin, same start and same data, with attention collapse PLANTED in named heads",
        ),
        ZooModel(
            smollm2.NAME,
            "SmolLM2-135M-Instruct, a real Llama-type model whose sinks arose by themselves",
            obtain=smollm2.converted,
        ),
    )
}


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
