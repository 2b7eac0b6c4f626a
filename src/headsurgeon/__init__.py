"""headsurgeon finds attention heads that collapsed onto the first token, repairs and tests them.

The public names below are loaded when first used, so that importing the package costs nothing:

    model, tokenizer = hs.load("zoo:bloom-mini-collapsed")
    windows = hs.windows("package:sympy", tokenizer, split="dev", length=256, count=64)
    diagnosis = hs.diagnose(hs.measure(model, windows))
    patient = hs.operate(model, hs.plan(diagnosis, rule="sick"))
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headsurgeon.data import Windows as Windows
    from headsurgeon.data import windows as windows
    from headsurgeon.diagnose import Diagnosis as Diagnosis
    from headsurgeon.diagnose import diagnose as diagnose
    from headsurgeon.diagnose import plan as plan
    from headsurgeon.errors import HeadsurgeonError as HeadsurgeonError
    from headsurgeon.evaluate import ablate as ablate
    from headsurgeon.evaluate import ablation_cost as ablation_cost
    from headsurgeon.evaluate import drift as drift
    from headsurgeon.evaluate import evaluate as evaluate
    from headsurgeon.evaluate import recovery as recovery
    from headsurgeon.heads import HeadId as HeadId
    from headsurgeon.heads import HeadStats as HeadStats
    from headsurgeon.heads import Plan as Plan
    from headsurgeon.measure import measure as measure
    from headsurgeon.models import load as load
    from headsurgeon.operate import Patient as Patient
    from headsurgeon.operate import apply_patch as apply_patch
    from headsurgeon.operate import operate as operate
    from headsurgeon.train import train as train

_HOME = {
    "Diagnosis": "diagnose",
    "HeadId": "heads",
    "HeadStats": "heads",
    "HeadsurgeonError": "errors",
    "Patient": "operate",
    "Plan": "heads",
    "Windows": "data",
    "ablate": "evaluate",
    "ablation_cost": "evaluate",
    "apply_patch": "operate",
    "diagnose": "diagnose",
    "drift": "evaluate",
    "evaluate": "evaluate",
    "load": "models",
    "measure": "measure",
    "operate": "operate",
    "plan": "diagnose",
    "recovery": "evaluate",
    "train": "train",
    "windows": "data",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'headsurgeon' has no attribute {name!r}")
    value = getattr(import_module(f"headsurgeon.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps `hs.measure` the function although `headsurgeon.measure` is a package as well.

    Importing a subpackage binds its name on the parent; for public names that binding is refused,
    and `__getattr__` above finds the function instead.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
