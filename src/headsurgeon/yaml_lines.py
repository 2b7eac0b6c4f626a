"""YAML text to a pydantic model, with every fault of the text at once, each with its line.

The text is composed into nodes, which know their lines; pydantic validates the plain data of them,
and the location of each of its errors leads back to a node. Scalars are read as YAML 1.2 does:
`yes`, `0o17` and `2026-11-25` are text, `1e-5` is a number.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from headsurgeon.errors import InputError
from headsurgeon.files import HEADER, header_fault, shorten
from headsurgeon.records import literals, message_of

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[str | int, ...]
# Further faults of the plain data, by location; it is also given what says the line of a location.
Check = Callable[[Any, Callable[[Location], int]], Iterable[tuple[Location, str]]]

_TAG = "tag:yaml.org,2002:"
_NULL = f"{_TAG}null"
_OPEN = object()
# What a scalar without quotes is, by YAML 1.2: how it looks, how it begins, what it becomes.
_SCALARS: dict[str, tuple[str, list[str], Callable[[str], Any]]] = {
    _NULL: ("~|null|Null|NULL|", ["~", "n", "N", ""], lambda text: None),
    f"{_TAG}bool": (
        "true|True|TRUE|false|False|FALSE",
        list("tTfF"),
        lambda text: {"true": True, "false": False}[text.lower()],
    ),
    # Python refuses to read thousands of digits as a whole number
    f"{_TAG}int": (
        "[-+]?[0-9]+",
        list("-+0123456789"),
        lambda text: int(text) if len(text) <= 20 else float(text),
    ),
    f"{_TAG}float": (
        r"[-+]?([.][0-9]+|[0-9]+([.][0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?[.](inf|Inf|INF)|[.](nan|NaN)",
        list("-+.0123456789"),
        lambda text: float(re.sub("[.](?=[inIN])", "", text)),
    ),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, (_pattern, _first, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(f"({_pattern})$"), _first)


def plain_yaml(text: str) -> Any:
    """The text as plain data, its scalars read as `load_yaml` reads them.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


def load_yaml(
    model: type[Model],
    text: str,
    name: str,
    *,
    error: type[InputError] = InputError,
    kind: str | None = None,
    check: Check | None = None,
) -> Model:
    """Reads YAML text into a pydantic model.

    Lists come as tuples, so that a strict model may hold tuples. Where text is expected, a number
    or `true` is taken as it is written. A model's `title` is what messages call its pairs, and its
    class variable `yaml_keys`, where it has one, what they name as known.

    Args:
        model: what the text describes; `extra="forbid"` and `strict=True` make it exact.
        text: the YAML text.
        name: what messages call it, such as the path.
        error: the exception to raise.
        kind: kind of file; with it the header is checked, and kept from the model. A file without
            `schema` is one of schema 1.
        check: finds faults that the model cannot, in plain data that may have others too.

    Raises:
        error: every fault of the text, each with its line.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
        reading = _Reading(model, root, kind) if root is not None else None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise error(f"{name}{line}: not YAML ({problem.problem})") from problem
    except yaml.YAMLError as problem:
        raise error(f"{name}: not YAML ({problem})") from problem
    except RecursionError:
        raise error(f"{name}: nested too deeply") from None
    if reading is None:
        raise error(f"{name} is empty; expected `name: value` pairs")
    result = reading.validated(check)
    faults = sorted(reading.faults)
    if len(faults) == 1:
        raise error(f"{name}, line {faults[0][0]}: {faults[0][1]}")
    if faults or result is None:
        lines = "".join(f"\n  line {line}: {message}" for line, message in faults)
        raise error(f"{name} has {len(faults)} faults:{lines}")
    return result


class _Reading(Generic[Model]):
    """One text on its way to a model: its nodes, their plain data, and the faults so far."""

    def __init__(self, model: type[Model], root: yaml.Node, kind: str | None) -> None:
        self.model, self.root, self.kind = model, root, kind
        self.faults: set[tuple[int, str]] = set()
        # scalars that stand where text is expected, whatever YAML takes them for
        self.texts: set[yaml.Node] = set()
        self.content = self.plain(self.root, (), {})

    def validated(self, check: Check | None) -> Model | None:
        """The model, or None when there are faults."""
        if isinstance(self.content, dict) and self.kind is not None:
            content: dict[str, Any] = {"schema": 1} | self.content
            if fault := header_fault(content, self.kind):
                field = "schema" if content.get("kind") == self.kind else "kind"
                self.faults.add((self.line((field,)), fault))
                if "kind" in content:
                    # what a file of another kind, or a newer one, holds is not for us to judge
                    return None
        for location, message in check(self.content, self.line) if check else ():
            self.faults.add((self.line(location), message))
        result, errors = self.attempt()
        places = [self.node(each["loc"])[0] for each in errors if each["type"] == "string_type"]
        self.texts = {n for n in places if isinstance(n, yaml.ScalarNode) and n.tag != _NULL}
        if self.texts:
            self.content = self.plain(self.root, (), {})
            result, errors = self.attempt()
        for each in errors:
            self.note(each)
        return result

    def attempt(self) -> tuple[Model | None, list[ErrorDetails]]:
        content = self.content
        if self.kind is not None and isinstance(content, dict):
            content = {key: value for key, value in content.items() if key not in HEADER}
        try:
            # past an `__init__` of the model's own, which may have another exception for faults
            validator = self.model.__pydantic_validator__
            result: Model = validator.validate_python(
                content, self_instance=self.model.__new__(self.model)
            )
            return result, []
        except ValidationError as problem:
            return None, problem.errors(include_url=False)
        except InputError as problem:
            # a model within that has an exception of its own, which does not say where
            self.faults.add((_line(self.root), str(problem)))
            return None, []

    def plain(self, node: yaml.Node, location: Location, known: dict[yaml.Node, Any]) -> Any:
        """Plain data of a node; an alias gives the same object again, so that none multiply."""
        if node in known:
            if known[node] is _OPEN:
                self.faults.add((_line(node), "it contains itself"))
                return None
            return known[node]
        known[node] = _OPEN
        if isinstance(node, yaml.MappingNode):
            value: Any = {}
            for key, item in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    self.fault_in(location, key, f"unknown key {_shown(key)}")
                elif key.value in value:
                    self.fault_in(location, key, f"{key.value} is here for the second time")
                else:
                    value[key.value] = self.plain(item, (*location, key.value), known)
        elif isinstance(node, yaml.SequenceNode):
            value = tuple(
                self.plain(item, (*location, index), known) for index, item in enumerate(node.value)
            )
        else:
            value = self.scalar(node)
        known[node] = value
        return value

    def scalar(self, node: yaml.Node) -> Any:
        text = str(node.value)
        if node in self.texts or node.tag == f"{_TAG}str":
            return text
        try:
            return _SCALARS[node.tag][2](text)
        except (KeyError, ValueError):
            tag = node.tag.replace(_TAG, "!!")
            self.faults.add((_line(node), f"{_shown(node)} cannot be read as {tag}"))
            return None

    def fault_in(self, location: Location, node: yaml.Node, message: str) -> None:
        self.faults.add((_line(node), f"{_title(self.model, location)}: {message}"))

    def line(self, location: Location) -> int:
        return _line(self.node(location)[0])

    def node(self, location: Location) -> tuple[yaml.Node, Location]:
        """The node of a location, and the part of it that the text has."""
        node, path = self.root, list[str | int]()
        for part in location:
            # what is not there is a branch of a union, or a field that the model made up
            if isinstance(node, yaml.MappingNode):
                below = [value for key, value in node.value if key.value == part][:1]
            else:
                items = node.value if isinstance(node, yaml.SequenceNode) else []
                below = items[part : part + 1] if isinstance(part, int) else []
            if below:
                node, path = below[0], [*path, part]
        return node, tuple(path)

    def key(self, location: Location) -> yaml.Node:
        above = self.node(location[:-1])[0]
        keys: list[yaml.Node] = [key for key, _ in above.value]
        return next(key for key in keys if key.value == location[-1])

    def note(self, error: ErrorDetails) -> None:
        """Takes one of pydantic's errors to its line."""
        location, kind, detail = error["loc"], error["type"], error.get("ctx", {})
        of_key = location[-1:] == ("[key]",)
        if kind == "extra_forbidden" or of_key:
            location = location[:-1] if of_key else location
            known = _names(self.model, location[:-1])
            if of_key:
                known = literals(detail["expected"])
            elif len(location) == 1 and self.kind is not None:
                known = (*HEADER, *known)
            key = self.key(location)
            self.fault_in(
                location[:-1], key, f"unknown key {_shown(key)}; known are {', '.join(known)}"
            )
            return
        node, path = self.node(location)
        if kind == "missing" or (node.tag == _NULL and location and path == location):
            self.faults.add((_line(node), f"{location[-1]} is missing"))
            return
        message = message_of(error)
        if message.startswith("expected "):
            message = f"{message}, got {_shown(node)}"
        names = [part for part in path if isinstance(part, str)]
        self.faults.add(
            (_line(node), f"{names[-1] if names else _title(self.model, ())}: {message}")
        )


def _title(model: type[BaseModel], location: Location) -> str:
    """What messages call the pairs at a location: the title of their model, else their name."""
    below = _model_at(model, location)
    names = [part for part in location if isinstance(part, str)]
    return (below and below.model_config.get("title")) or (names[-1] if names else "the text")


def _names(model: type[BaseModel], location: Location) -> tuple[str, ...]:
    """The keys that are known at a location."""
    below = _model_at(model, location) or BaseModel
    fields = tuple(field.alias or name for name, field in below.model_fields.items())
    return tuple(getattr(below, "yaml_keys", fields))


def _model_at(kind: Any, location: Location) -> type[BaseModel] | None:
    """The model at a location below a type, through lists, mappings and unions."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not location:
            return kind
        fields = {field.alias or name: field for name, field in kind.model_fields.items()}
        field = fields.get(str(location[0]))
        return None if field is None else _model_at(field.annotation, location[1:])
    for part in get_args(kind):
        # an entry of a list or mapping takes one step of the location, a branch of a union none
        for rest in (location, location[1:]):
            if below := _model_at(part, rest):
                return below
    return None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(shorten(str(node.value)))
    return "a list" if isinstance(node, yaml.SequenceNode) else "`name: value` pairs"
