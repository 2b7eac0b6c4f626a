"""Where each head lives: `layout.py` says what a layout is, `registry.py` has every family."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
