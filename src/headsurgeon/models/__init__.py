"""Models: `load.py` from a name, `catalogue.py` what ships, `forward.py` runs over windows."""

from headsurgeon.models.catalogue import ZOO, ZooModel
from headsurgeon.models.load import load

__all__ = ["ZOO", "ZooModel", "load"]
