"""Claims about reading YAML into a model: every fault comes at once, each with its line."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from headsurgeon.errors import InputError, SettingsError
from headsurgeon.yaml_lines import Location, load_yaml


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, title="a part")
    name: str
    rate: Annotated[float, Field(allow_inf_nan=False)] = 0.5
    kind: Literal["first", "second"] = "first"


class Whole(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, title="the study")
    name: str
    seed: int = 0
    quick: bool = False
    sources: str | tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    by_name: Mapping[str, Part] = {}
    only: Part | None = None
    free: Mapping[str, Any] = {}


def read(text: str, **options: Any) -> Whole:
    return load_yaml(Whole, text, "study.yaml", **options)


def fault(text: str, **options: Any) -> str:
    with pytest.raises(InputError) as raised:
        read(text, **options)
    return str(raised.value)


def test_every_fault_is_reported_at_once_in_the_order_of_lines() -> None:
    text = """\
name: [x]
sed: 1
seed: 1.0
quick: yes
parts:
- name: a
  rate: fast
- {name: b, colour: red}
- {rate: 1}
- c
by_name:
  d: {name: d, kind: third}
only:
  name: e
  name: f
"""
    assert fault(text).splitlines() == [
        "study.yaml has 10 faults:",
        "  line 1: name: expected text, got a list",
        "  line 2: the study: unknown key 'sed'; known are name, seed, quick, sources, parts, "
        "by_name, only, free",
        "  line 3: seed: expected a whole number, got '1.0'",
        "  line 4: quick: expected true or false, got 'yes'",
        "  line 7: rate: expected a finite number, got 'fast'",
        "  line 8: a part: unknown key 'colour'; known are name, rate, kind",
        "  line 9: name is missing",
        "  line 10: parts: expected `name: value` pairs, got 'c'",
        "  line 12: kind: expected one of first, second, got 'third'",
        "  line 15: a part: name is here for the second time",
    ]


def test_scalars_are_what_yaml_1_2_says_and_text_where_text_is_expected() -> None:
    found = read(
        "name: 0560\nseed: 0123\nparts: [{name: 1e-5, rate: 1e-5}, {name: yes, rate: 1}]\n"
        "sources: [2026-11-25, 12:30, true]\nfree: {a: 2, b: -1e3, c: on, d: [true, ~], e: '1'}"
    )
    assert (found.name, found.seed) == ("0560", 123)
    assert [(part.name, part.rate) for part in found.parts] == [("1e-5", 1e-5), ("yes", 1.0)]
    assert found.sources == ("2026-11-25", "12:30", "true")
    assert found.free == {"a": 2, "b": -1000.0, "c": "on", "d": (True, None), "e": "1"}


@pytest.mark.parametrize("value", ["1.0", "true", "'1'", "0x1F", "1_000", "9" * 5000, "[1]"])
def test_a_whole_number_is_nothing_that_only_could_be_one(value: str) -> None:
    assert "line 2: seed: expected a whole number, got" in fault(f"name: m\nseed: {value}")


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999", "true", "'0.5'", "half"])
def test_a_finite_number_is_nothing_else(value: str) -> None:
    text = f"name: m\nparts:\n- {{name: a, rate: {value}}}"
    assert "line 3: rate: expected a finite number, got" in fault(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "study.yaml is empty"),
        ("name: [", "study.yaml, line 1: not YAML"),
        ("\0", "not YAML"),
        ("[" * 3000, "nested too deeply"),
        ("just text", "line 1: the study: expected `name: value` pairs, got 'just text'"),
        ("name: m\nfree: &a [*a]", "line 2: it contains itself"),
        ("name: m\n? [a]\n: 1", "line 2: the study: unknown key a list"),
        ("name: m\nseed:", "line 2: seed is missing"),
        ("name: m\nfree: {a: !!int x}", "line 2: 'x' cannot be read as !!int"),
        ("name: m\nfree: {a: !!python/name:os.system x}", "cannot be read as !!python/name"),
    ],
)
def test_what_is_no_study_is_refused(text: str, message: str) -> None:
    assert message in fault(text)


def test_aliases_are_read_and_do_not_multiply() -> None:
    assert read("name: m\nonly: &p {name: a}\nparts: [*p, *p]").parts == (Part(name="a"),) * 2
    lines = [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    assert read("\n".join(["name: m", "free:", "  a0: &a0 [x]", *lines])).free["a0"] == ("x",)


def check(content: Any, line: Callable[[Location], int]) -> Iterator[tuple[Location, str]]:
    yield ("parts", 1), f"as on line {line(('parts', 0))}"


def test_further_checks_have_their_lines_beside_the_faults_of_the_model() -> None:
    text = "name: m\nseed: x\nparts:\n- name: a\n- name: a"
    assert fault(text, check=check).splitlines()[1:] == [
        "  line 2: seed: expected a whole number, got 'x'",
        "  line 5: as on line 4",
    ]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("kind: plan\n", "line 1: expected a headsurgeon study file, found plan"),
        ("kind: study\nschema: two\n", "line 2: schema: expected a whole number from 1 to 1"),
        ("kind: study\nschema: 99\nheadsurgeon: 7.1\n", "line 2: written by a newer headsurgeon"),
    ],
)
def test_a_header_that_does_not_fit_is_the_only_fault(head: str, message: str) -> None:
    found = fault(f"{head}sed: 1", kind="study")
    assert message in found
    assert "unknown" not in found
    assert read("kind: study\nschema: 1\nheadsurgeon: 0.1\nname: m", kind="study").name == "m"


def test_a_header_that_is_missing_is_one_fault_of_all() -> None:
    assert fault("sed: 1\nname: m", kind="study").splitlines() == [
        "study.yaml has 2 faults:",
        "  line 1: expected a headsurgeon study file, found none",
        "  line 1: the study: unknown key 'sed'; known are kind, schema, headsurgeon, name, seed, "
        "quick, sources, parts, by_name, only, free",
    ]


def test_the_exception_is_the_one_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"study\.yaml, line 1: name is missing"):
        read("seed: 1", error=SettingsError)


@given(st.text(alphabet="namesdfrpt:-{}[],01.\n '\"&*!~", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InputError):
        assert isinstance(read(text), Whole)
