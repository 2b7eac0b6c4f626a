"""headsurgeon finds attention heads that collapsed onto the first token, repairs and tests them.

The public names (`__init__.pyi` lists them) are loaded when first used: importing the package
costs nothing.

    model, tokenizer = hs.load("zoo:bloom-mini-collapsed")
    windows = hs.windows("package:sympy", tokenizer, split="dev", length=256, count=64)
    diagnosis = hs.diagnose(hs.measure(model, windows))
    patient = hs.operate(model, hs.plan(diagnosis, rule="sick"))
"""

import lazy_loader

from headsurgeon.extras import naming

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__getattr__ = naming(_load)
