"""Where each head lives: `layout.py` says what a layout is, one file per family, `registry.py`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
