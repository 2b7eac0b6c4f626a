"""A result file that was edited or damaged is a result, or an error; so are a study's files."""

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headsurgeon as hs
from headsurgeon.errors import HeadsurgeonError
from headsurgeon.planning import Plan
from headsurgeon.study import conclude
from headsurgeon.study.results import CELL, PREPARED, RATE, Cell, folder_of
from tests.pico import pico, tokens
from tests.study_files import finished_study

ODD = st.sampled_from(
    [
        *(None, True, -1, 0, 10**12, 10**30, 1e308, 0.5, "", "x", "NaN", "Infinity", "L99H0"),
        *([], [1, 2], [[[]]], {}, {"a": 1}, "9" * 5000, "\x1b]0;x\x07", "../.."),
    ]
)
HOW = st.sampled_from(["replace", "remove", "add"])
SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def mutated(content: Any, place: tuple[Any, ...], value: Any, how: str) -> Any:
    content = copy.deepcopy(content)
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    if how == "replace":
        parent[place[-1]] = value
    elif how == "remove":
        del parent[place[-1]]
    elif isinstance(parent, dict):
        parent["unknown"] = value
    else:
        parent.append(value)
    return content


@cache
def results() -> dict[str, tuple[Any, Any]]:
    """One of each kind of result, and its file's content."""
    model, ids = pico("bloom"), tokens(3)
    stats = hs.measure(model, ids)
    patient = hs.operate(model, Plan(model="", heads=({"id": "L1H2"},)))
    after = hs.measure(model, ids)
    windows = hs.Windows(ids, ("a", "b", "c"), "tokens", "none", "none", 0, "hash")
    made = (
        hs.evaluate(model, ids),
        hs.ablate(model, ["L0H0", "L2H1"], ids),
        hs.drift(stats, after, ["L1H2"]),
        hs.recovery(patient, windows, null_seeds=(1, 2)),
    )
    return {type(each).__name__: (type(each), each) for each in made}


@pytest.fixture(params=["Evaluation", "Ablation", "Drift", "Recovery"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@SETTINGS
@given(data=st.data())
def test_a_mutated_result_is_a_result_or_an_error(
    kind: str, tmp_path: Path, data: st.DataObject
) -> None:
    cls, result = results()[kind]
    path = tmp_path / "result.json"
    result.save(path)
    content = json.loads(path.read_text())
    place = data.draw(st.sampled_from(list(places(content))))
    path.write_text(json.dumps(mutated(content, place, data.draw(ODD), data.draw(HOW))))
    try:
        found = cls.load(path)
    except HeadsurgeonError:
        return
    # what was accepted can be shown, and is the same when read again
    str(found)
    found.save(path)
    assert cls.load(path).model_dump_json() == found.model_dump_json()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_study(tmp_path_factory.mktemp("study"))


@settings(SETTINGS, max_examples=20)
@given(data=st.data())
def test_a_mutated_study_folder_is_concluded_or_refused_in_words(
    study: Path, data: st.DataObject
) -> None:
    files = sorted(path for path in study.rglob("*.json") if path.name in (CELL, PREPARED, RATE))
    path = data.draw(st.sampled_from([*files, study / "study.yaml"]))
    before = path.read_bytes()
    if path.suffix == ".json" and data.draw(st.booleans()):
        content = json.loads(before)
        place = data.draw(st.sampled_from(list(places(content))))
        path.write_text(json.dumps(mutated(content, place, data.draw(ODD), data.draw(HOW))))
    else:
        start = data.draw(st.integers(0, len(before)))
        piece = data.draw(st.sampled_from([b"", b"-1", b"9" * 5000, b"NaN", b"[", b"\xff", b"*a"]))
        path.write_bytes(before[:start] + piece + before[start + data.draw(st.integers(0, 12)) :])
    try:
        conclude(study)
    except HeadsurgeonError:
        pass
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("text",), "prose"),
        (("seed",), 7),
        (("scored", "prose"), None),
        (("scored", "code", "tokens"), [1.0]),
        (("scored", "code", "nll", 0), 1e999),
        (("heads", "code", "entropy", 1), []),
        (("heads", "code", "first_token_mass"), []),
    ],
)
def test_a_cell_that_does_not_fit_its_study_is_refused(
    study: Path, place: tuple[Any, ...], value: Any
) -> None:
    path = folder_of(study, Cell("untrained", "", 0)) / CELL
    before = path.read_text()
    how = "remove" if value is None else "replace"
    path.write_text(json.dumps(mutated(json.loads(before), place, value, how)))
    try:
        with pytest.raises(HeadsurgeonError, match=r"cell\.json"):
            conclude(study)
    finally:
        path.write_text(before)


def test_prepared_json_is_read_by_the_report_as_by_the_study(study: Path) -> None:
    path = study / PREPARED
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"versions": ""}))
    try:
        with pytest.raises(HeadsurgeonError, match=r"prepared\.json"):
            hs.write_report(study)
    finally:
        path.write_text(before)


def test_a_loss_of_minus_infinity_is_no_loss(tmp_path: Path) -> None:
    cls, result = results()["Evaluation"]
    path = tmp_path / "losses.json"
    result.save(path)
    content = json.loads(path.read_text())
    content["per_document"][0]["nll"] = "-Infinity"
    path.write_text(json.dumps(content))
    with pytest.raises(HeadsurgeonError, match="expected a loss above"):
        cls.load(path)
