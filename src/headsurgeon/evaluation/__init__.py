"""Whether it mattered: loss, ablation, drift, and the rule for calling a head recovered."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
