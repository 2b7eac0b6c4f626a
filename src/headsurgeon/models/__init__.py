"""Models: `load.py` from a name, `catalogue.py` what ships, `forward.py` runs over windows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
