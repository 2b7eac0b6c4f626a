"""A diagnosis file that was edited or damaged is a diagnosis, or an error that names the place."""

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headsurgeon as hs
from headsurgeon.errors import HeadsurgeonError, InputError
from tests.head_stats import diagnosis_of


def content_of(diagnosis: hs.Diagnosis) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "diagnosis.json"
        diagnosis.save(path)
        return dict(json.loads(path.read_text()))


def read(content: dict[str, Any]) -> hs.Diagnosis:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "diagnosis.json"
        path.write_text(json.dumps(content))
        return hs.Diagnosis.load(path)


CONTENT = content_of(diagnosis_of([[0.2, 0.97], [0.6, 0.1]]))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**12), 10**12),
    st.just(10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 3), max_size=2),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    for key, item in items:
        here = (*path, key)
        found += places(item, here) if isinstance(item, dict | list) else [here]
    return found


PLACES = places(CONTENT)


@given(st.sampled_from(PLACES), ODD, st.sampled_from(["replace", "remove", "add"]))
@settings(max_examples=300)
def test_every_mutation_is_a_diagnosis_or_an_error(
    place: tuple[Any, ...], value: Any, how: str
) -> None:
    content = copy.deepcopy(CONTENT)
    parent: Any = content
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
    try:
        found = read(content)
    except HeadsurgeonError:
        return
    assert found.stats.shape == (2, 2)
    assert np.isfinite(found.stats.first_token_mass).all()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("values", "first_token_mass", 0, 0, 1), "0.97"),
        (("values", "first_token_mass", 0, 0, 1), True),
        (("values", "first_token_mass", 0, 0, 1), 1.7),
        (("values", "entropy", 0, 0, 1), None),
        (("verdicts", 0, 1), "healthy"),
        (("verdicts", 0, 1), "x" * 10**7),
        (("thresholds", "sink"), "0.5"),
        (("thresholds", "sink"), 1.5),
        (("draws",), 10**12),
        (("draws",), True),
        (("seed",), -1),
        (("provenance", "length"), 10**12),
        (("documents", 0), 7),
    ],
)
def test_what_no_diagnosis_says_is_named(place: tuple[Any, ...], value: Any) -> None:
    content = copy.deepcopy(CONTENT)
    parent: Any = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    with pytest.raises(InputError, match=r"damaged"):
        read(content)


def test_the_file_as_it_was_written_is_read() -> None:
    assert content_of(read(CONTENT)) == CONTENT


@pytest.mark.parametrize(
    ("earlier", "now"), [("blocked", "blocks"), ("tiled", "tiles"), ("fused", "kernel")]
)
def test_an_earlier_name_of_the_attention_that_ran_is_read(earlier: str, now: str) -> None:
    content = copy.deepcopy(CONTENT)
    content["provenance"]["attention"] = earlier
    assert read(content).stats.provenance.attention == now
