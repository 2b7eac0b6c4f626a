"""Claims about result files: they come back exactly, and what is none of them is refused."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from headsurgeon.diagnosis import Thresholds
from headsurgeon.errors import InputError
from headsurgeon.evaluation import Ablation, Drift, Recovery
from headsurgeon.files import header, write_json
from headsurgeon.heads import HeadId
from headsurgeon.results import Result
from headsurgeon.scores import Estimate, Evaluation

numbers = st.floats(allow_nan=True, allow_infinity=True)
# results are built in the tests, from these: building them checks types, which draws at random
Recipe = Callable[[], Any]
estimates = st.tuples(numbers, numbers, numbers).map(lambda three: partial(Estimate, *three))
head_ids = st.builds(HeadId, st.integers(0, 2), st.integers(0, 3))


def built(value: Any) -> Any:
    """A value with every recipe in it followed."""
    if isinstance(value, partial):
        return value()
    if isinstance(value, dict):
        return {key: built(item) for key, item in value.items()}
    return tuple(map(built, value)) if type(value) is tuple else value


def recipe(kind: type[Result], **fields: Any) -> Recipe:
    return partial(lambda: kind(**{name: built(value) for name, value in fields.items()}))


@st.composite
def evaluations(draw: st.DrawFn) -> Recipe:
    names = draw(st.lists(st.text(max_size=5), min_size=1, max_size=4))
    counts = draw(arrays(np.int64, len(names), elements=st.integers(1, 10**6)))
    return recipe(
        Evaluation,
        model=draw(st.text(max_size=5)),
        corpus="package:sympy",
        split="test",
        length=256,
        stride=255,
        corpus_hash="0",
        count=8,
        first_token="none",
        seed=draw(st.integers(0, 2**63 - 1)),
        documents=tuple(names),
        document_nll=draw(arrays(np.float64, len(names), elements=st.floats(0, 1e6))),
        document_tokens=counts.astype(np.float64),
        attention="tiles",
        document_lengths=draw(st.none() | st.just(counts + 1.0)),
    )


@st.composite
def ablations(draw: st.DrawFn) -> Recipe:
    return recipe(
        Ablation,
        mode=draw(st.sampled_from(["zero", "mean"])),
        joint=draw(estimates),
        singles=draw(st.dictionaries(head_ids, estimates, max_size=2)),
        baseline=draw(evaluations()),
        ablated=draw(evaluations()),
    )


@st.composite
def recoveries(draw: st.DrawFn) -> Recipe:
    heads = draw(st.lists(head_ids, min_size=1, max_size=3))
    masks = [draw(arrays(np.bool_, len(heads))) for _ in range(3)]
    return recipe(
        Recovery,
        heads=tuple(heads),
        was_sick=masks[0],
        left_sick=masks[1],
        unlike_null=masks[2],
        stock=(draw(ablations()),),
        revived=(draw(ablations()),),
        function=(draw(estimates),),
        null=(draw(arrays(np.float64, len(heads), elements=st.floats(0, 1))),),
    )


@st.composite
def drifts(draw: st.DrawFn) -> Recipe:
    changes = arrays(np.float64, (3, 4), elements=st.floats(-1, 1) | st.just(math.nan))
    table = st.dictionaries(
        st.tuples(st.sampled_from(["healthy", "sick"]), st.sampled_from(["healthy", "sick"])),
        st.integers(0, 12),
    )
    return recipe(
        Drift,
        mass_change=draw(changes),
        entropy_change=draw(changes),
        operated=tuple(draw(st.lists(head_ids, max_size=2))),
        watched=tuple(draw(st.lists(head_ids, max_size=2))),
        structural_zeros=draw(arrays(np.bool_, (3, 4))),
        transitions={"operated": draw(table), "untouched": draw(table)},
        threshold=0.05,
    )


KINDS = {
    "estimate": estimates,
    "losses": evaluations(),
    "ablation": ablations(),
    "drift": drifts(),
    "recovery": recoveries(),
}


def same(first: Any, second: Any) -> bool:
    """Whether two values are the same to the last bit, NaN equal to NaN."""
    if isinstance(first, Result):
        names = type(first).model_fields
        return type(first) is type(second) and all(
            same(getattr(first, name), getattr(second, name)) for name in names
        )
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(
            first, second, equal_nan=first.dtype != bool
        )
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, float) and math.isnan(first):
        return isinstance(second, float) and math.isnan(second)
    return type(first) is type(second) and first == second


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, phases=[Phase.generate])
@given(data=st.data())
def test_a_result_comes_back_from_its_file_exactly(
    tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    result = data.draw(KINDS[kind])()
    path = tmp_path_factory.getbasetemp() / "result.json"
    result.save(path)
    content = json.loads(path.read_text("utf-8"))
    assert (content["kind"], content["schema"]) == (type(result).kind, 1)
    assert same(type(result).load(path), result)
    # and from its plain data, as another result holds it
    assert same(type(result).model_validate(result.model_dump()), result)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 9))
def test_thresholds_come_back_too(
    tmp_path_factory: pytest.TempPathFactory, first: float, second: float, entropy: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "thresholds.json"
    original = Thresholds(sink=min(first, second), dead=max(first, second), low_entropy=entropy)
    original.save(path)
    assert Thresholds.load(path) == original


ESTIMATE = {"value": 0.1, "low": 0.0, "high": 0.2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**header("drift"), **ESTIMATE}, "expected a headsurgeon estimate file, found drift"),
        ({**header("estimate"), **ESTIMATE, "schema": 2}, "newer headsurgeon"),
        ({**header("estimate"), **ESTIMATE, "low": "0.0"}, "damaged .*low: expected a finite"),
        ({**header("estimate"), **ESTIMATE, "low": True}, "damaged .*low: expected a finite"),
        ({**header("estimate"), **ESTIMATE, "mean": 1}, "damaged .*mean"),
        ({**header("estimate"), "value": 0.1, "low": 0.0}, "damaged .*high"),
    ],
)
def test_a_file_of_another_kind_or_a_damaged_one_is_refused(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    write_json(tmp_path / "result.json", content)
    with pytest.raises(InputError, match=message):
        Estimate.load(tmp_path / "result.json")


def drift_file(path: Path, **changes: Any) -> None:
    found = Drift(
        mass_change=np.zeros((2, 2)),
        entropy_change=np.zeros((2, 2)),
        operated=(HeadId(0, 1),),
        watched=(),
        structural_zeros=np.zeros((2, 2), dtype=bool),
        transitions={"operated": {("sick", "healthy"): 1}},
        threshold=0.05,
    )
    found.save(path)
    content = json.loads(path.read_text("utf-8"))
    assert content["transitions"] == {"operated": {"sick → healthy": 1}}
    write_json(path, content | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mass_change": [[0.0]]}, "different shapes"),
        ({"mass_change": [0.0, 1.0]}, r"mass_change: expected an array \[layer head\]"),
        ({"mass_change": [[0.0], [1.0, 2.0]]}, "mass_change: expected rows of one length"),
        ({"mass_change": [["0.0"]]}, "mass_change: expected an array of numbers"),
        ({"structural_zeros": [[0, 1], [1, 0]]}, "structural_zeros: expected an array of"),
        ({"operated": ["L9H0"]}, "L9H0: the model has layers 0–1"),
        ({"operated": ["9H0"]}, "expected a head such as L5H14"),
        ({"transitions": {"operated": {"sick": 1}}}, "transitions"),
        ({"transitions": {"operated": {"sick → healthy": -1}}}, "transitions"),
    ],
)
def test_what_no_drift_can_be_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    drift_file(tmp_path / "drift.json", **changes)
    with pytest.raises(InputError, match=f"damaged .*{message}"):
        Drift.load(tmp_path / "drift.json")


def test_an_evaluation_without_its_tokens_is_refused(tmp_path: Path) -> None:
    entry = {"document": "a", "nll": 1.0, "tokens": 0}
    fields = dict.fromkeys(("model", "corpus", "split", "corpus_hash", "first_token"), "m")
    fields |= dict.fromkeys(("length", "stride", "count", "seed"), 2)
    path = tmp_path / "losses.json"
    write_json(path, {**header("losses"), **fields, "per_document": [entry]})
    with pytest.raises(InputError, match=r"damaged .*tokens"):
        Evaluation.load(path)
    write_json(path, {**header("losses"), **fields, "per_document": [entry | {"tokens": 2}]})
    assert Evaluation.load(path).nll == 0.5
