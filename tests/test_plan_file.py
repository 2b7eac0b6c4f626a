"""Claims about plan files: an exact round trip, and faults that name their lines."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from headsurgeon.errors import PlanError
from headsurgeon.heads import VERDICTS, HeadId
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.planning.plan import HEAD_STATISTICS
from headsurgeon.planning.planning import plan
from tests.head_stats import diagnosis_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
numbers = st.floats(allow_nan=False, allow_infinity=False)
head_ids = st.tuples(st.integers(0, 99), st.integers(0, 99))
head_fields = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["operate", "watch"]),
        "verdict": st.sampled_from(["", *VERDICTS]),
        "statistics": st.dictionaries(st.sampled_from(HEAD_STATISTICS), numbers, max_size=3),
        "ablation_cost": st.none() | numbers,
    }
)
plan_fields = st.fixed_dictionaries(
    {
        "model": texts.filter(bool),
        "rule": texts.filter(bool),
        "fingerprint": st.none() | texts,
        "thresholds": st.dictionaries(st.sampled_from(["sink", "dead", "low_entropy"]), numbers),
        "init": texts.filter(bool),
        "output_start": texts.filter(bool),
        "seed": st.integers(0, 2**63 - 1),
        "joint_cost": st.none() | numbers,
        "notes": st.lists(texts, max_size=3).map(tuple),
    }
)


@settings(max_examples=60)
@given(plan_fields, st.dictionaries(head_ids, head_fields, min_size=1, max_size=4))
def test_a_plan_comes_back_exactly_with_every_head_on_a_line_of_its_own(
    fields: dict, heads: dict
) -> None:
    planned = tuple(PlannedHead(id=HeadId(*key), **heads[key]) for key in sorted(heads))
    original = Plan(heads=planned, **fields)
    text = original.to_yaml()
    assert Plan.from_yaml(text) == original
    assert len(re.findall(r"^- \{head: L\d+H\d+,.*\}$", text, re.MULTILINE)) == len(planned)


def example() -> str:
    """A plan as the command writes it; sick: L0H1, L1H0."""
    return plan(diagnosis_of([[0.1, 0.6], [0.97, 0.2]])).to_yaml()


def line_of(text: str, start: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(start))


def test_the_file_explains_itself_and_keeps_the_order_of_fields() -> None:
    text = example()
    assert text.startswith("# A headsurgeon plan")
    keys = [line.split(":")[0] for line in text.splitlines() if re.match("[a-z_]+:", line)]
    assert keys == [
        *("kind", "schema", "headsurgeon", "model", "fingerprint", "rule", "thresholds", "init"),
        *("output_start", "seed", "ablation_mode", "joint_cost", "notes", "heads"),
    ]
    assert "- {head: L1H0, role: operate, verdict: dead, first_token_mass: 0.97, " in text


def test_a_short_plan_written_by_hand_is_enough() -> None:
    found = Plan.from_yaml(
        "kind: plan\nmodel: bigscience/bloom-560m\nheads:\n- head: l5h14\n- {head: L2H3}"
    )
    assert found.operated == (HeadId(2, 3), HeadId(5, 14))
    assert found == Plan(
        model="bigscience/bloom-560m",
        rule="heads",
        heads=(PlannedHead(id=HeadId(2, 3)), PlannedHead(id=HeadId(5, 14))),
    )


def test_numbers_may_be_written_as_people_write_them() -> None:
    found = Plan.from_yaml(
        "kind: plan\nmodel: 560\njoint_cost: 1e-5\nheads: [{head: L0H0, slope: 1}]"
    )
    assert (found.model, found.joint_cost) == ("560", 1e-5)
    assert found.heads[0].statistics == {"slope": 1.0}


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("rule: sick", "rul: sick", "rul:", "the plan: unknown key 'rul'; known are kind, schema"),
        ("seed: 0", "seed: zero", "seed:", "2^63 - 1, got 'zero'"),
        ("seed: 0", "seed: -1", "seed:", "2^63 - 1, got '-1'"),
        ("seed: 0", "seed: true", "seed:", "seed: expected a whole number"),
        ("seed: 0", "seed: 0\nseed: 1", "seed: 1", "the plan: seed is here for the second time"),
        (
            "joint_cost: null",
            "joint_cost: cheap",
            "joint_cost",
            "expected a finite number, got 'cheap'",
        ),
        (
            "joint_cost: null",
            "joint_cost: [1]",
            "joint_cost",
            "expected a finite number, got a list",
        ),
        (
            "joint_cost: null",
            "joint_cost: true",
            "joint_cost",
            "expected a finite number, got 'true'",
        ),
        ("model: pico", "model: [pico]", "model", "model: expected text, got a list"),
        ("model: pico", "model:", "model", "model is missing"),
        (
            "  sink: 0.5",
            "  snk: 0.5",
            "  snk",
            "thresholds: unknown key 'snk'; known are sink, dead",
        ),
        ("  sink: 0.5", "  sink: half", "  sink", "sink: expected a finite number, got 'half'"),
        ("notes:", "notes: none\nheads:", "notes", "notes: expected a list, got 'none'"),
        ("kind: plan", "kind: patch", "kind", "expected a headsurgeon plan file, found patch"),
        ("- {head: L0H1", "- {head: 0H1", "- {head: 0H1", "expected a head such as L5H14"),
        ("- {head: L0H1", "- {hed: L0H1", "- {hed", "a head: unknown key 'hed'; known are head"),
        ("- {head: L0H1", "- L0H1\n- {head: L0H1", "- L0H1", "expected `name: value` pairs"),
        ("role: operate", "role: cut", "- {head: L0H1", "role: expected one of operate, watch"),
        ("verdict: sink", "verdict: ill", "- {head: L0H1", "verdict: expected one of healthy"),
        (
            "first_token_mass: 0.6",
            "first_token_mass: x",
            "- {head: L0H1",
            "expected a finite number",
        ),
        (
            "- {head: L1H0",
            "- {head: L0H1",
            "- {head: L0H1, role: operate, verdict: dead",
            "L0H1 is",
        ),
        ("- {head: L1H0", "- {head: L2H0", "- {head: L2H0", "L2H0: the model has layers 0–1"),
        ("- {head: L1H0", "- {head: L1H2", "- {head: L1H2", "L1H2: the model has heads 0–1"),
    ],
)
def test_a_fault_names_its_line(old: str, new: str, line: str, message: str) -> None:
    text = example().replace(old, new, 1)
    with pytest.raises(PlanError) as raised:
        Plan.from_yaml(text, "plan.yaml", layers=2, heads=2)
    assert f"line {line_of(text, line)}: " in str(raised.value)
    assert message in str(raised.value)


def test_all_faults_are_reported_at_once_in_the_order_of_lines() -> None:
    text = example().replace("rule:", "rul:").replace("seed: 0", "seed: x").replace("L1H0", "L9H0")
    with pytest.raises(PlanError) as raised:
        Plan.from_yaml(text, "plan.yaml", layers=2, heads=2)
    lines = [int(n) for n in re.findall(r"line (\d+):", str(raised.value))]
    assert str(raised.value).startswith("plan.yaml has 3 faults:")
    assert lines == [line_of(text, "rul:"), line_of(text, "seed:"), line_of(text, "- {head: L9H0")]


def test_the_same_fault_on_two_lines_is_reported_twice() -> None:
    with pytest.raises(PlanError) as raised:
        Plan.from_yaml("kind: plan\nmodel: m\nheads:\n- {head: L0H0, x: 1}\n- {head: L0H1, x: 1}")
    assert re.findall(r"line (\d)", str(raised.value)) == ["4", "5"]


def test_a_doubled_head_names_both_lines() -> None:
    with pytest.raises(PlanError, match="line 5: L0H0 is here for the second time, see line 4"):
        Plan.from_yaml("kind: plan\nmodel: m\nheads:\n- {head: L0H0}\n- {head: L0H0, role: watch}")


def test_without_the_model_any_head_may_be_planned() -> None:
    assert Plan.from_yaml(example().replace("L1H0", "L99H99")).operated[-1] == HeadId(99, 99)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "plan is empty"),
        ("# only a comment\n", "plan is empty"),
        ("kind: plan\nheads: [\n", r"plan, line 3: not YAML"),
        ("kind: plan\n\tmodel: m\n", r"line 2: not YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: not YAML"),
        ("\x00", "not YAML"),
        ("just text", "the plan: expected `name: value` pairs, got 'just text'"),
        ("kind: plan\nmodel: m\n", "heads: expected at least one"),
        ("kind: plan\nmodel: m\nheads: []\n", "line 3: heads: expected at least one"),
        ("kind: plan\nmodel: m\nheads: L0H0\n", "heads: expected a list, got 'L0H0'"),
        ("model: m\nheads: [{head: L0H0}]\n", "expected a headsurgeon plan file, found none"),
        ("kind: plan\nmodel: m\nheads: [{role: watch}]\n", "line 3: head is missing"),
        ("kind: plan\nmodel: m\n? [a]\n: 1\nheads: [{head: L0H0}]\n", "unknown key a list"),
        ("&a [*a]", "expected `name: value` pairs, got a list"),
        ("kind: plan\nschema: two\nmodel: m\nheads: [{head: L0H0}]", "schema: expected a whole"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_yaml(text)


def test_a_newer_schema_is_refused_before_its_unknown_keys_are() -> None:
    text = example().replace("schema: 1", "schema: 99\nnovelty: 1")
    with pytest.raises(PlanError, match=r"newer headsurgeon \(schema 99.*upgrade"):
        Plan.from_yaml(text)


@given(st.text(alphabet="kind: plamoehs-{}[]L0H1,\n'\"&*!", max_size=60))
def test_any_text_is_a_plan_or_a_plan_error(text: str) -> None:
    with suppress(PlanError):
        assert isinstance(Plan.from_yaml(text), Plan)


def test_files_are_read_and_written(tmp_path: Path) -> None:
    original = plan(diagnosis_of([[0.1, 0.6]]), layers=(0, 0))
    original.save(tmp_path / "plan.yaml")
    assert Plan.load(tmp_path / "plan.yaml", layers=1, heads=2) == original
    assert Plan.from_yaml(original.to_yaml()) == original


def test_a_file_that_cannot_be_read_is_a_plan_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"cannot read .*No such file"):
        Plan.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanError, match=r"binary\.yaml is not UTF-8 text"):
        Plan.load(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"statistics": {"beauty": 1.0}}, "statistics.beauty: expected one of first_token_mass, "),
        ({"verdict": "ill"}, "verdict: expected one of , healthy, sink, .*, got 'ill'"),
        ({"role": "cut"}, "role: expected one of operate, watch, got 'cut'"),
        ({"ablation_cost": "0.5"}, "ablation_cost: expected a finite number, got '0.5'"),
        ({"id": "5H1"}, "expected a head such as L5H14"),
        ({"role": "cut", "verdict": "ill"}, "role: .*; verdict: "),
    ],
)
def test_what_could_not_be_read_again_cannot_be_built(fields: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PlannedHead(**{"id": HeadId(0, 1), **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": True}, "seed: expected a whole number from 0 to 2"),
        ({"seed": 1.0}, "seed: expected a whole number from 0 to 2"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 2"),
        ({"joint_cost": "0.5"}, "joint_cost: expected a finite number, got '0.5'"),
        ({"model": None}, "model: expected text, got None"),
        ({"thresholds": {"snk": 0.5}}, "thresholds.snk: expected one of sink, dead, low_entropy"),
        ({"notes": "none"}, "notes: expected a list, got 'none'"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_a_plan_guesses_no_types_and_names_what_it_cannot_hold(fields: dict, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan(**{"model": "m", "heads": (), **fields})


def test_a_plan_is_frozen_and_its_changed_copy_is_validated_again() -> None:
    original = Plan(model="m", heads=(PlannedHead(id=HeadId(0, 1)),))
    with pytest.raises(ValidationError, match="frozen"):
        original.seed = 1
    assert original.replace(seed=7) == Plan(model="m", heads=original.heads, seed=7)
    with pytest.raises(PlanError, match="seed: expected a whole number"):
        original.replace(seed=-7)
    with pytest.raises(PlanError, match="sed"):
        original.replace(sed=7)


@settings(max_examples=30)
@given(plan_fields, st.dictionaries(head_ids, head_fields, max_size=3))
def test_a_plan_comes_back_from_its_plain_data_and_from_json(fields: dict, heads: dict) -> None:
    planned = tuple(PlannedHead(id=HeadId(*key), **heads[key]) for key in heads)
    original = Plan(heads=planned, **fields)
    assert Plan.model_validate(original.model_dump()) == original
    assert Plan.model_validate_json(original.model_dump_json()) == original


def test_a_plan_says_how_its_costs_were_taken_and_older_ones_meant_zero() -> None:
    found = plan(diagnosis_of([[0.1, 0.6]]), cost=lambda heads: 0.25, ablation_mode="mean")
    assert Plan.from_yaml(found.to_yaml()).ablation_mode == "mean"
    older = found.to_yaml().replace("ablation_mode: mean\n", "")
    assert Plan.from_yaml(older).ablation_mode == "zero"
    with pytest.raises(PlanError, match=r"line .*ablation_mode"):
        Plan.from_yaml(found.to_yaml().replace("ablation_mode: mean", "ablation_mode: median"))


def test_a_start_that_an_older_plan_spells_with_a_hyphen_is_the_same_start() -> None:
    text = example()
    older = text.replace("output_start: zero_output", "output_start: zero-output")
    assert older != text
    assert Plan.from_yaml(older) == Plan.from_yaml(text)
