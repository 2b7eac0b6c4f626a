"""Presets that come in variants, and those that change another one: small overlays of YAML.

A preset may name the one it is `like`, change its fields, and have `variants`, of which one is
chosen when it is loaded. Mappings are merged field by field; anything else is replaced.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from headsurgeon.errors import StudyError
from headsurgeon.files import read_text
from headsurgeon.paper import head_list
from headsurgeon.yaml_lines import plain_yaml

FOLDER = Path(__file__).parent / "presets"
# studies that come with the package, by name
PRESETS = {path.stem: path for path in FOLDER.glob("*.yaml")}
# which of a preset's variants is meant where none is named: what we would do ourselves
DEFAULT = "corrected"


def variants_of(name: str) -> tuple[str, ...]:
    """The variants of a preset; none for one that has but one form."""
    content = _content(PRESETS[name])
    if "like" in content:
        return tuple({**dict.fromkeys(variants_of(content["like"])), **content.get("variants", {})})
    return tuple(content.get("variants", {}))


def preset_text(name: str, variant: str | None = None) -> str:
    """A preset as the YAML of one study.

    Raises:
        StudyError: it has no variant of that name.
    """
    known = variants_of(name)
    if variant is not None and variant not in known:
        there = f"it has {', '.join(known)}" if known else "it has none"
        raise StudyError(f"preset {name}: no variant {variant!r}; {there}")
    if not known:
        return read_text(PRESETS[name])
    variant = variant or DEFAULT
    content = _resolved(name, variant)
    content["name"] = f"{name}.{variant}"
    plan = content.get("plan", {})
    if isinstance(named := plan.pop("paper_heads", None), str):
        listed = head_list(named)
        plan["heads"] = [str(head) for head in listed.operate]
        plan["watch"] = [str(head) for head in listed.watch]
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _resolved(name: str, variant: str) -> dict[str, Any]:
    own = _content(PRESETS[name])
    base = own.pop("like", None)
    changes = own.pop("variants", {}).get(variant, {})
    content = own if base is None else _merged(_resolved(base, variant), own)
    return _merged(content, changes)


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`one` with the fields of `other`, mappings within it merged likewise."""
    both = {
        key: _merged(one[key], other[key])
        for key in one.keys() & other.keys()
        if isinstance(one[key], Mapping) and isinstance(other[key], Mapping)
    }
    return {**one, **other, **both}


def _content(path: Path) -> dict[str, Any]:
    content = plain_yaml(read_text(path))
    assert isinstance(content, dict)
    return content
