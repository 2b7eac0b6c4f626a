"""Which check each function of the package runs under while it is tested.

`jaxtyped` lets a name such as "layer" stand for one size in all the arguments of a call. That takes
some forty microseconds a call, needed or not, and most functions name no shape: they get the plain
check of their annotations, which takes about one. The whole suite is three times as fast for it.
"""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any, ForwardRef, Literal, get_args, get_origin

import jaxtyping
from jaxtyping import AbstractArray, install_import_hook, jaxtyped

# an int where a float is annotated is fine, as it is for mypy
CHECK = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"


def check_annotations(package: str) -> None:
    """Has every annotation of a package checked when its functions run, shapes included."""
    # what the hook writes above every function and class that is imported from now on
    jaxtyping.jaxtyped = checked
    install_import_hook(package, CHECK)


def checked(decorated: Any = None, *, typechecker: Callable[[Any], Any]) -> Any:
    """Stands in for `jaxtyped`: the same where a shape is annotated, the plain check elsewhere."""
    if decorated is None:
        return partial(checked, typechecker=typechecker)
    if inspect.isclass(decorated):
        if is_dataclass(decorated) and inspect.isfunction(vars(decorated).get("__init__")):
            decorated.__init__ = checked(decorated.__init__, typechecker=typechecker)
        return decorated
    annotations = inspect.get_annotations(decorated, eval_str=False).values()
    if any(names_a_shape(annotation) for annotation in annotations):
        return jaxtyped(decorated, typechecker=typechecker)
    return typechecker(decorated)


def names_a_shape(annotation: Any) -> bool:
    """Whether a type is, or holds, an array type of jaxtyping; a type in quotes may."""
    if isinstance(annotation, str | ForwardRef):
        return True
    if get_origin(annotation) is Literal:
        return False
    if inspect.isclass(annotation) and issubclass(annotation, AbstractArray):
        return True
    parts = annotation if isinstance(annotation, list) else get_args(annotation)
    return any(names_a_shape(part) for part in parts)
