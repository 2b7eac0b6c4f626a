"""What a public function was given, held against its own annotations before anything is done."""

import collections.abc
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from headsurgeon.errors import SettingsError
from headsurgeon.files import shorten

Given = ParamSpec("Given")
Returned = TypeVar("Returned")

# stands for a value that is not of the kind
_OTHER = object()
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
# by the name of a kind: where one comes from
_SOURCES = {
    "PreTrainedModel": "model, tokenizer = headsurgeon.load(…) gives one",
    "PreTrainedTokenizerBase": "model, tokenizer = headsurgeon.load(…) gives one",
    "Windows": "headsurgeon.windows(corpus, tokenizer) makes them",
    "HeadStats": "headsurgeon.measure(model, windows) gives them",
    "Diagnosis": "headsurgeon.diagnose(stats) gives one",
    "Costs": "headsurgeon.ablation_cost(model, windows) gives them",
    "Plan": "headsurgeon.plan(diagnosis) gives one, headsurgeon.Plan.load(path) reads one",
    "Patient": "headsurgeon.operate(model, plan) gives one",
    "Learner": "headsurgeon.operate(model, plan) gives one",
    "Evaluation": "headsurgeon.evaluate(model, windows) gives one",
    "TrainSettings": "headsurgeon.TrainSettings(max_tokens=…) are some",
    "Thresholds": "headsurgeon.Thresholds(…) are some",
    "Study": "headsurgeon.Study.load(path) reads one",
}


def checked(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """The same function, which first refuses arguments of another kind than it is annotated with.

    numpy's numbers become Python's, since files and messages are to hold those. Whether a value is
    in range is left to the function, as is which of its words a text is.

    Raises:
        SettingsError: names the argument, what was expected, and what came.
    """
    signature = inspect.signature(function)
    hints = cache(lambda: get_type_hints(function))
    several = {
        name for name, each in signature.parameters.items() if each.kind is each.VAR_POSITIONAL
    }

    @wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            # one too many, or one missing: Python says so, and in which function
            return function(*args, **kwargs)
        for name, value in bound.arguments.items():
            hint = hints().get(name, Any)
            given = value if name in several else (value,)
            fitted = tuple(_fitted(each, hint) for each in given)
            for each, kept in zip(given, fitted, strict=True):
                if kept is _OTHER:
                    raise SettingsError(f"{function.__name__}: {name}: {_said(each, hint)}")
            bound.arguments[name] = fitted if name in several else fitted[0]
        return function(*bound.args, **bound.kwargs)

    return call


def _fitted(value: Any, hint: Any) -> Any:
    """The value as something of that kind, or `_OTHER`."""
    kind, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if kind in (Union, UnionType):
        fitted = (_fitted(value, part) for part in parts)
        return next((each for each in fitted if each is not _OTHER), _OTHER)
    if kind is Literal:
        return value if isinstance(value, tuple(type(part) for part in parts)) else _OTHER
    if hint in (int, float):
        return _number(value, Integral if hint is int else Real)
    if hint is bool and isinstance(value, np.bool_):
        return bool(value)
    if kind in (tuple, collections.abc.Sequence, collections.abc.Iterable):
        return _sequence(value, kind, parts)
    if kind in (dict, collections.abc.Mapping):
        return _mapping(value, parts)
    if kind is collections.abc.Callable:
        return value if callable(value) else _OTHER
    kind = kind or hint
    unknowable = not isinstance(kind, type) or (
        getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False)
    )
    return value if unknowable or isinstance(value, kind) or _wraps(value, kind) else _OTHER


def _number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind):
        return _OTHER
    return value.item() if isinstance(value, np.generic) else value


def _sequence(value: Any, kind: Any, parts: tuple[Any, ...]) -> Any:
    # each letter of a text is a text, but nobody means that
    if isinstance(value, str | bytes):
        return _OTHER
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence):
        # what can be read once is left to the function
        iterable = kind is collections.abc.Iterable and isinstance(value, collections.abc.Iterable)
        return value if iterable else _OTHER
    wanted = parts
    if kind is not tuple or parts[1:] == (...,):
        wanted = parts[:1] * len(value)
    if len(wanted) != len(value):
        return _OTHER
    items = [_fitted(item, part) for item, part in zip(value, wanted, strict=True)]
    if any(item is _OTHER for item in items):
        return _OTHER
    alike = all(item is given for item, given in zip(items, value, strict=True))
    if alike and (kind is not tuple or isinstance(value, tuple)):
        return value
    return tuple(items) if kind is tuple else items


def _mapping(value: Any, parts: tuple[Any, ...]) -> Any:
    if not isinstance(value, Mapping):
        return _OTHER
    fitted = {_fitted(key, parts[0]): _fitted(item, parts[1]) for key, item in value.items()}
    return _OTHER if _OTHER in fitted or _OTHER in fitted.values() else fitted


def _wraps(value: Any, kind: type) -> bool:
    """Whether it is a model in the wrapper of a library, of which others say what can be done."""
    config = getattr(value, "config", None)
    return kind.__name__ == "PreTrainedModel" and hasattr(config, "model_type")


def _said(value: Any, hint: Any) -> str:
    sources = [_SOURCES[name] for name in map(_name, _parts(hint)) if name in _SOURCES]
    advice = f"; {sources[0]}" if sources else ""
    if isinstance(value, bytes) and any(part is str for part in _parts(hint)):
        advice = "; os.fsdecode makes text of it"
    return f"expected {_expected(hint)}, got {_came(value)}{advice}"


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _expected(hint: Any) -> str:
    """A kind in words."""
    named = list(dict.fromkeys(map(_name, _parts(hint))))
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} or {named[-1]}"


def _name(hint: Any) -> str:
    kind, parts = get_origin(hint), get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if hint is NoneType:
        return "None"
    if kind is Literal:
        return ", ".join(map(str, parts))
    if kind is tuple and ... not in parts:
        return f"({', '.join(map(_expected, parts))})"
    if kind in (tuple, collections.abc.Sequence, collections.abc.Iterable):
        return f"a list of {_expected(parts[0])}"
    if kind in (dict, collections.abc.Mapping):
        return f"a mapping from {_expected(parts[0])} to {_expected(parts[1])}"
    if kind is collections.abc.Callable:
        return "a function"
    if kind is os.PathLike:
        return "a path"
    return str(getattr(kind or hint, "__name__", hint))


def _came(value: Any) -> str:
    """A value in words, never longer than a line."""
    if value is None or isinstance(value, bool):
        return str(value)
    name = type(value).__name__
    short = isinstance(value, int) and value.bit_length() < 256
    if short or isinstance(value, str | bytes | float | np.generic):
        return f"{shorten(repr(value), 60)} ({name})"
    if isinstance(value, list | tuple):
        inside = ", ".join(dict.fromkeys(type(item).__name__ for item in value[:20]))
        return f"{name} of {inside}" if inside else f"an empty {name}"
    return name
