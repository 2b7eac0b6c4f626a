"""Studies as data: arms × texts × seeds, run anywhere, and what it all came to."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
