"""Reading YAML so that every fault is known with its line, not only the first."""

import math
from collections.abc import Mapping, Sequence

import yaml

from headsurgeon.errors import PlanError
from headsurgeon.files import shorten

_NULL = "tag:yaml.org,2002:null"
_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Reader:
    """Takes fields out of a YAML text and collects what is wrong with them.

    Attributes:
        name: what messages call the text.
        root: the top node.

    Raises:
        PlanError: the text is not YAML, or empty.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._faults: set[tuple[int, str]] = set()
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            raise PlanError(f"{name}{line}: not YAML ({error.problem})") from error
        except yaml.YAMLError as error:
            raise PlanError(f"{name}: not YAML ({error})") from error
        except RecursionError:
            raise PlanError(f"{name}: nested too deeply for a plan") from None
        if root is None:
            raise PlanError(f"{name} is empty; expected a plan")
        self.root: yaml.Node = root

    def line(self, node: yaml.Node) -> int:
        """The line a node starts on, from 1."""
        return int(node.start_mark.line) + 1

    def fault(self, node: yaml.Node | None, message: str) -> None:
        """Notes a fault at the line of `node`; without one, at the top."""
        self._faults.add((self.line(node or self.root), message))

    def raise_faults(self) -> None:
        """Raises `PlanError` with every fault noted, in the order of lines."""
        found = sorted(self._faults)
        if len(found) == 1:
            raise PlanError(f"{self.name}, line {found[0][0]}: {found[0][1]}")
        if found:
            lines = "".join(f"\n  line {line}: {message}" for line, message in found)
            raise PlanError(f"{self.name} has {len(found)} faults:{lines}")

    def mapping(self, node: yaml.Node, names: Sequence[str], what: str) -> dict[str, yaml.Node]:
        """The fields of a mapping by name; unknown and doubled names are faults."""
        fields: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, f"{what}: expected `name: value` pairs, got {_shown(node)}")
            return fields
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value not in names:
                self.fault(key, f"{what}: unknown key {_shown(key)}; known are {', '.join(names)}")
            elif key.value in fields:
                self.fault(key, f"{what}: {key.value} is here for the second time")
            else:
                fields[key.value] = value
        return fields

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """The entries of a list."""
        if node is None or node.tag == _NULL:
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, f"{what}: expected a list, got {_shown(node)}")
            return []
        return list(node.value)

    def text(
        self,
        fields: Mapping[str, yaml.Node],
        name: str,
        required: bool = False,
        within: yaml.Node | None = None,
    ) -> str | None:
        """A text, or what YAML takes for a number or date but was meant as one; None for null."""
        node = fields.get(name)
        if node is None or node.tag == _NULL:
            if required:
                self.fault(node or within, f"{name} is missing")
            return None
        if not isinstance(node, yaml.ScalarNode):
            self.fault(node, f"{name}: expected text, got {_shown(node)}")
            return None
        return str(node.value)

    def texts(self, fields: Mapping[str, yaml.Node], name: str) -> tuple[str, ...]:
        """A list of texts."""
        nodes = self.items(fields.get(name), name)
        return tuple(self.text({name: node}, name) or "" for node in nodes)

    def choice(
        self, fields: Mapping[str, yaml.Node], name: str, known: Sequence[str]
    ) -> str | None:
        """One of several names."""
        found = self.text(fields, name)
        if found is not None and found not in known:
            self.fault(fields[name], f"{name}: expected one of {', '.join(known)}, got {found!r}")
            return None
        return found

    def number(self, fields: Mapping[str, yaml.Node], name: str) -> float | None:
        """A number; None for null."""
        node = fields.get(name)
        if node is None or node.tag == _NULL:
            return None
        value = _number(node)
        if value is None or not math.isfinite(value):
            self.fault(node, f"{name}: expected a finite number, got {_shown(node)}")
            return None
        return value

    def integer(self, fields: Mapping[str, yaml.Node], name: str, least: int, default: int) -> int:
        """A whole number of at least `least`; `default` when absent or null."""
        node = fields.get(name)
        if node is None or node.tag == _NULL:
            return default
        # digits are read directly: a float would lose some of a large seed
        if (
            not isinstance(node, yaml.ScalarNode)
            or not (node.value.isascii() and node.value.isdecimal())
            or len(node.value) > 19
            or not least <= int(node.value) < 2**63
        ):
            message = f"{name}: expected a whole number from {least} to 2^63 - 1"
            self.fault(node, f"{message}, got {_shown(node)}")
            return default
        return int(node.value)


def _number(node: yaml.Node) -> float | None:
    # YAML 1.1 takes 1e-5, without a point, for text
    if node.tag not in (*_NUMBERS, _TEXT) or not isinstance(node, yaml.ScalarNode):
        return None
    try:
        return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return None


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(shorten(str(node.value)))
    return "a list" if isinstance(node, yaml.SequenceNode) else "`name: value` pairs"
