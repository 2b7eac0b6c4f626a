"""Naming a start: `xavier_normal`, or with parameters `partial_reset(rho=0.3)`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from headsurgeon.errors import SettingsError
from headsurgeon.records import snake_case
from headsurgeon.starts.head_tensors import HeadTensors, StartContext

_WRITTEN = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\((.*)\))?", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")


@dataclass(frozen=True)
class Number:
    """A parameter of a start: its default and its range, ends included."""

    default: float
    least: float
    most: float


@dataclass(frozen=True)
class Start:
    """One way for heads to start.

    Attributes:
        function: changes the slices of the operated heads of one layer, which it is given as views
            together with a `StartContext`; layers come from the lowest up. Parameters are passed by
            name.
        parameters: what may be set, by name.
        calibrated: whether it looks at the model on calibration windows.
        untrained: whether queries and keys are drawn blindly, so that heads started like this and
            not trained show what an untrained head does.
        output_bias: whether it writes into the bias of the layer's output projection.
    """

    function: Callable[..., None]
    parameters: Mapping[str, Number] = field(default_factory=dict)
    calibrated: bool = False
    untrained: bool = False
    output_bias: bool = False


@dataclass(frozen=True)
class ChosenStart:
    """A start with its parameters.

    Attributes:
        start: the start.
        name: how it is written, all parameters included.
        apply: its function, with the parameters given.
    """

    start: Start
    name: str
    apply: Callable[[list[HeadTensors], StartContext], None]


def choose_start(kind: str, written: str, known: Mapping[str, Start]) -> ChosenStart:
    """The start that a plan or a command line names.

    Args:
        kind: what messages call it: `init` or `output_start`.
        written: a name, perhaps with parameters: `partial_reset(rho=0.3)`.
        known: the starts there are.

    Raises:
        SettingsError: no such start or parameter, or a value that is no number in its range.
    """
    match = _WRITTEN.fullmatch(snake_case(written.strip()))
    name = match[1] if match else written
    start = known.get(name)
    if match is None or start is None:
        raise SettingsError(f"no {kind} {name[:80]!r}; known are {', '.join(sorted(known))}")
    values = {key: number.default for key, number in start.parameters.items()}
    if match[2] is not None:
        values |= _values(f"{kind} {name}", match[2], start.parameters)
    given = ", ".join(f"{key}={value!r}" for key, value in values.items())
    complete = f"{name}({given})" if given else name
    return ChosenStart(start, complete, partial(start.function, **values))


def _values(what: str, text: str, known: Mapping[str, Number]) -> dict[str, float]:
    if not known:
        raise SettingsError(f"{what} takes no parameters, got ({text[:80]})")
    example = ", ".join(f"{key}={number.default:g}" for key, number in known.items())
    values: dict[str, float] = {}
    for item in text.split(","):
        key, equals, value = (piece.strip() for piece in item.partition("="))
        if not equals or not _NUMBER.fullmatch(value):
            raise SettingsError(f"{what}: expected ({example}), got ({text[:80]})")
        if key not in known:
            raise SettingsError(f"{what}: no parameter {key[:80]!r}; known are {', '.join(known)}")
        if key in values:
            raise SettingsError(f"{what}: {key} is given twice")
        least, most = known[key].least, known[key].most
        if not least <= float(value) <= most:
            raise SettingsError(f"{what}: {key}: expected {least:g} to {most:g}, got {value}")
        values[key] = float(value)
    return values
