"""Training the slices of a patient: settings, the loop, checkpoints, the log."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
