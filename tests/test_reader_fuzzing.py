"""Files of others that are read: what texts, prompts and checkpoints hold, or an error of ours."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headsurgeon as hs
from headsurgeon.errors import CorpusError, HeadsurgeonError, ModelError
from headsurgeon.models.planted import is_planted
from tests.char_tokenizer import char_tokenizer
from tests.clinic import checkpoint, sick_bloom

SETTINGS = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["\ud800", "\x00", 10**30, -1, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
PIECES = st.sampled_from(
    [b"", b"9" * 5000, b"NaN", b"[", b"\xff", b"\x00", b'"\\ud800"', b"[" * 3000]
)


def cut(content: bytes, data: st.DataObject) -> bytes:
    start = data.draw(st.integers(0, len(content)))
    return content[:start] + data.draw(PIECES) + content[start + data.draw(st.integers(0, 9)) :]


@SETTINGS
@given(data=st.data())
def test_given_texts_are_texts_or_an_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "texts.json"
    content: Any = {"a": "some words", "b": "and more of them"}
    if data.draw(st.booleans()):
        content = data.draw(ODD | st.fixed_dictionaries({"a": ODD, "b": ODD}))
    raw = json.dumps(content).encode()
    path.write_bytes(cut(raw, data) if data.draw(st.booleans()) else raw)
    try:
        found = hs.texts(path, char_tokenizer())
    except HeadsurgeonError:
        return
    assert len(found) > 0


@SETTINGS
@given(data=st.data())
def test_prompts_are_prompts_or_an_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "prompts.yaml"
    path.write_bytes(cut(b"kind: prompts\nprompts:\n- {id: a, text: some words}\n", data))
    try:
        found = hs.read_prompts(path)
    except HeadsurgeonError:
        return
    assert all(prompt.text for prompt in found)


@pytest.fixture(scope="module")
def sick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("sick"), sick_bloom())


@settings(SETTINGS, max_examples=12)
@given(data=st.data())
def test_a_checkpoint_with_a_mutated_json_file_is_loaded_or_refused(
    sick: Path, data: st.DataObject
) -> None:
    names = ["config.json", "tokenizer_config.json", "generation_config.json"]
    path = sick / data.draw(st.sampled_from([name for name in names if (sick / name).exists()]))
    before = path.read_bytes()
    content = json.loads(before)
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(ODD)
    raw = json.dumps(content).encode()
    path.write_bytes(cut(raw, data) if data.draw(st.booleans()) else raw)
    try:
        model, _ = hs.load(str(sick))
    except HeadsurgeonError:
        return
    finally:
        path.write_bytes(before)
    assert model.config.model_type == "bloom"


def test_half_of_a_surrogate_pair_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_text('["whole", "h\\ud83dalf"]', encoding="utf-8")
    with pytest.raises(CorpusError, match="half of a surrogate pair, at character 1"):
        hs.texts(path, char_tokenizer())


def test_two_texts_of_one_name_are_not_one(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_text('{"a": "one", "a": "two"}', encoding="utf-8")
    with pytest.raises(CorpusError, match="a"):
        hs.texts(path, char_tokenizer())


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(sick: Path, tmp_path: Path) -> None:
    for name in ("texts.json", "words.txt", "headsurgeon.json"):
        os.mkfifo(tmp_path / name)
    for name in ("texts.json", "words.txt"):
        with pytest.raises(CorpusError, match="no ordinary file"):
            hs.texts(tmp_path / name, char_tokenizer())
    assert not is_planted(str(tmp_path))
    folder = checkpoint(tmp_path / "model", sick_bloom())
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a readable file"):
        hs.load(str(folder))
