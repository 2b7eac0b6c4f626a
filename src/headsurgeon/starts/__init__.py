"""How operated heads start: small named functions that change the slices of a layer's heads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
