"""The models that ship with the package: a pair of miniature BLOOMs, one with planted collapse.

`python zoo/train_twins.py` in the repository trains them; each folder has a card (README.md).
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from headsurgeon.errors import ModelError

PREFIX = "zoo:"


@dataclass(frozen=True)
class ZooModel:
    """A shipped model: its name after `zoo:` and what it is, in one line."""

    name: str
    summary: str

    @property
    def folder(self) -> Path:
        """Where its checkpoint and card lie."""
        return Path(str(files("headsurgeon.models") / "zoo" / self.name))


ZOO: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel("bloom-mini", "a miniature BLOOM trained on code and prose"),
        ZooModel(
            "bloom-mini-collapsed",
            "its twin, same start and same data, with attention collapse PLANTED in named heads",
        ),
    )
}


def zoo_folder(spec: str) -> Path:
    """The folder of `zoo:NAME`.

    Raises:
        ModelError: no such model; lists those there are.
    """
    name = spec.removeprefix(PREFIX)
    if name not in ZOO:
        known = ", ".join(PREFIX + known for known in ZOO)
        raise ModelError(f"no zoo model {spec!r}; there are {known}")
    return ZOO[name].folder
