"""What the paper reports, as data: literal head lists, published numbers, what its figures show."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
