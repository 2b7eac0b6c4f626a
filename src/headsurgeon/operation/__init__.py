"""Operating: slices in place of heads, how they start, merging, reverting, patch files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
