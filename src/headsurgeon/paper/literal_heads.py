"""The paper's literal head lists, from `heads.yaml`."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from headsurgeon.errors import SettingsError
from headsurgeon.heads import HeadId
from headsurgeon.records import HeadName, Record

Grade = Literal["A", "B", "C", "D"]


class HeadList(Record):
    """Heads that the paper names one by one.

    Attributes:
        name: such as `bloom-1b7-pass1`.
        model: whose heads they are.
        grade: A text and figures agree or recounted, B one source alone, C contradicted, D no
            script or no data.
        source: where the list is from.
        operate: heads that are operated on, sorted.
        watch: heads that are followed, or that something happened to, sorted.
    """

    name: str
    model: str
    grade: Grade
    source: str
    operate: tuple[HeadName, ...] = ()
    watch: tuple[HeadName, ...] = ()


@cache
def head_lists() -> Mapping[str, HeadList]:
    """All of them by name."""
    text = files("headsurgeon.paper").joinpath("heads.yaml").read_text(encoding="utf-8")
    return {name: _list(name, entry) for name, entry in yaml.safe_load(text).items()}


def head_list(name: str) -> HeadList:
    """One of them.

    Raises:
        SettingsError: there is none of that name; lists those that there are.
    """
    if name not in head_lists():
        raise SettingsError(f"no head list {name!r}; known are {', '.join(head_lists())}")
    return head_lists()[name]


def _list(name: str, entry: Mapping[str, Any]) -> HeadList:
    places = {
        role: tuple(
            HeadId(layer, head)
            for layer, heads in sorted(entry.get(role, {}).items())
            for head in heads
        )
        for role in ("operate", "watch")
    }
    return HeadList(**{**entry, **places}, name=name)
