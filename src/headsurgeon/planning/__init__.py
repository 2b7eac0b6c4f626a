"""Verdicts → plans: which heads will be operated on, by which rule, and what they do now."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
