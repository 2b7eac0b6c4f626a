"""Results → figures, tables and one HTML page. Takes numbers, never models: torch is not needed."""

import lazy_loader

from headsurgeon.extras import naming

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = naming(_load)
