"""The whole way on one model: diagnosis, plan, surgery, control, ceiling, verdict, pictures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
