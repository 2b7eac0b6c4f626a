"""A plan that was edited in any way is a plan, or an error that names the line."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headsurgeon as hs
from headsurgeon.errors import HeadsurgeonError, PlanError
from tests.head_stats import diagnosis_of

TEXT = hs.plan(diagnosis_of([[0.2, 0.97], [0.6, 0.1]])).to_yaml()
ODD = st.sampled_from(
    [
        *("", "\0", "\t", "- ", ": ", "{", "}", "[", "]", "[" * 40, "\n", "\n  ", '"', "'", "#"),
        *("&a ", "*a", "&a [*a]", "!!python/object:os.system ", "!!binary x", "%TAG", "---\n"),
        *(".nan", "-.inf", "1e999", "9" * 5000, "-1", "0x1F", "0o17", "1_000", "٣", "²", "12:30"),
        *("null", "~", "true", "yes", "2026-11-25", "L99999999999H0", "L0H-1", "\u202e", "é"),
        *("kind: plan\n", "heads: []\n", "seed: 1\n", "schema: 99\n", "- {head: L0H1}\n"),
    ]
)


@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(TEXT)), st.integers(0, 30), ODD), min_size=1, max_size=3
    )
)
@settings(max_examples=400)
def test_every_edit_is_a_plan_or_an_error(edits: list[tuple[int, int, str]]) -> None:
    text = TEXT
    for start, length, odd in edits:
        text = text[:start] + odd + text[start + length :]
    try:
        plan = hs.Plan.from_yaml(text)
    except HeadsurgeonError:
        return
    # what was accepted can be written, and is the same when read again
    assert hs.Plan.from_yaml(plan.to_yaml()) == plan
    assert all(0 <= head.id.layer < 10**9 and 0 <= head.id.head < 10**9 for head in plan.heads)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_plan_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.mktemp("bytes") / "plan.yaml"
    path.write_bytes(raw)
    with pytest.raises(PlanError):
        hs.Plan.load(path)


def test_a_pipe_is_no_plan_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.yaml")
    with pytest.raises(PlanError, match="no ordinary file"):
        hs.Plan.load(tmp_path / "plan.yaml")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "nowhere.yaml", "."])
def test_a_path_that_cannot_be_read_is_an_error(name: str) -> None:
    with pytest.raises(PlanError, match="not a plan"):
        hs.Plan.load(name)


def test_aliases_do_not_multiply() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 60)
    ]
    with pytest.raises(PlanError, match="unknown key"):
        hs.Plan.from_yaml("\n".join(lines))
