"""Documents → windows: within them, across them with a separator, and as the paper's code does."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headsurgeon.data import PACKINGS, Document, Windows, documents, split_of, windows
from headsurgeon.data.encoding import Encoder
from headsurgeon.data.packing import packed
from headsurgeon.errors import CorpusError, SettingsError
from tests.char_tokenizer import char_tokenizer

TOKENIZER = char_tokenizer()
ENCODER = Encoder(TOKENIZER)
TEXTS = st.lists(st.text("abc. ", max_size=30), min_size=1, max_size=8)


def numbered(texts: list[str]) -> list[Document]:
    return [Document(f"d{index}", text, "key") for index, text in enumerate(texts)]


def joined(texts: list[str], packing: str) -> list[int]:
    """The one run of tokens that is cut, made in another way than the code makes it."""
    if packing == "blank_lines":
        return [int(token) for token in TOKENIZER.encode("\n\n".join(texts))]
    parts = [TOKENIZER.encode(text) for text in texts if text]
    return [token for part in parts for token in (TOKENIZER.eos_token_id, *part)][1:]


@given(texts=TEXTS, body=st.integers(1, 12), seed=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("packing", ["separated", "blank_lines"])
def test_all_runs_together_are_the_joined_text_and_only_its_end_is_lost(
    packing: str, texts: list[str], body: int, seed: int
) -> None:
    runs = list(packed(numbered(texts), ENCODER, body, packing, seed))  # type: ignore[arg-type]
    whole = joined(texts, packing)
    expected = [whole[at : at + body] for at in range(0, len(whole) - body + 1, body)]
    assert sorted(ids for _, ids in runs) == sorted(expected)
    assert {name for name, _ in runs} <= {f"d{index}" for index in range(len(texts))}


def test_a_window_is_of_the_document_that_most_of_it_is_of() -> None:
    texts = ["aaaa", "bbbbbbbbbb", "cc"]
    found = {
        TOKENIZER.decode(ids): name
        for name, ids in packed(numbered(texts), ENCODER, 6, "separated", 0)
    }
    assert found == {"aaaa</s>b": "d0", "bbbbbb": "d1", "bbb</s>cc": "d1"}


@pytest.fixture
def spec(tmp_path: Path) -> str:
    for index in range(60):
        (tmp_path / f"file{index:02d}.txt").write_text(f"{index:02d} " + "word. " * (index % 7))
    return f"text:{tmp_path}/*.txt"


def train(spec: str, packing: str, **changes: object) -> Windows:
    return windows(spec, TOKENIZER, "train", 16, packing=packing, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("packing", PACKINGS)
def test_no_window_holds_text_of_another_split(spec: str, packing: str) -> None:
    numbers = {d.text[:2]: split_of(d.split_key) for d in documents(spec)}
    for split in ("train", "dev", "test"):
        found = windows(spec, TOKENIZER, split, 8, packing=packing, first_token="none")
        # every file begins with its number and has no other digits
        text = " ".join(TOKENIZER.decode(ids) for ids in found.tokens)
        inside = [number for number in numbers if f"{number} " in text]
        assert inside
        assert {numbers[number] for number in inside} == {split}


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_packing_is_recorded_and_a_smaller_count_is_the_beginning(
    spec: str, packing: str
) -> None:
    found = train(spec, packing, seed=2)
    assert found.packing == packing
    assert found.separator == ("blank line" if packing == "blank_lines" else "</s>")
    few = train(spec, packing, count=3, seed=2)
    assert few.tokens.tolist() == found.tokens[:3].tolist()
    assert found.tokens.tolist() != train(spec, packing, seed=3).tokens.tolist()


def test_packings_differ_where_documents_are_short(spec: str) -> None:
    found = [train(spec, packing).tokens.tolist() for packing in PACKINGS]
    assert found[0] != found[1] != found[2]


def test_blank_lines_are_what_the_tokenizer_makes_of_them(spec: str) -> None:
    inside = [d for d in documents(spec) if split_of(d.split_key) == "train"]
    whole = TOKENIZER.encode("\n\n".join(d.text for d in inside))
    found = train(spec, "blank_lines", first_token="none")
    assert sorted(found.tokens.tolist()) == sorted(
        whole[at : at + 16] for at in range(0, len(whole) - 15, 16)
    )


def test_a_packing_that_does_not_exist_is_refused(spec: str) -> None:
    with pytest.raises(SettingsError, match="documents, separated, blank_lines, got 'lines'"):
        train(spec, "lines")


@pytest.mark.parametrize("packing", PACKINGS)
def test_too_little_text_is_an_error_under_every_packing(tmp_path: Path, packing: str) -> None:
    (tmp_path / "one.txt").write_text("ab")
    spec = f"text:{tmp_path}/*.txt"
    split = split_of(next(documents(spec)).split_key)
    with pytest.raises(CorpusError, match="has 2 tokens"):
        windows(spec, TOKENIZER, split, 40, packing=packing)
