"""Statistics → verdicts: which heads are healthy, which are sick, and how sure that is."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
