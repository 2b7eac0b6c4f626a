"""Text as it is found: copies, chats, lines of articles, links in circles, very long documents."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from headsurgeon.data import documents, split_of, windows
from headsurgeon.data.encoding import PIECE, Encoder, pieces
from headsurgeon.data.splits import SPLITS, in_split
from headsurgeon.errors import CorpusError, SettingsError
from tests.char_tokenizer import char_tokenizer

TOKENIZER = char_tokenizer()


def data_set(folder: Path, rows: Sequence[object], column: str = "text") -> str:
    folder.mkdir()
    lines = "\n".join(json.dumps({column: row}) for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    return f"hf:{folder}"


# -- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "\n", "  \n\n"])
def test_copies_of_a_text_are_on_one_side_and_counted(tmp_path: Path, end: str) -> None:
    for index in range(60):
        text = "one text that many files hold" + (end if index % 2 else "")
        (tmp_path / f"copy{index}.txt").write_text(text)
    every = list(documents(f"text:{tmp_path}/*.txt"))
    found = {}
    for split in SPLITS:
        if split_of(every[0].split_key) == split:
            with pytest.warns(UserWarning, match="59 of 60 documents"):
                found[split] = in_split(every, split)
        else:
            found[split] = in_split(every, split)
    assert sorted(map(len, found.values())) == [0, 0, 60]


def test_copies_under_names_of_several_splits_go_where_they_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "copied_package"
    package.mkdir()
    for index in range(30):
        (package / f"part{index}.py").write_text("same = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    every = list(documents("package:copied_package"))
    assert {split_of(document.id) for document in every} == set(SPLITS)
    with pytest.warns(UserWarning, match="copies"):
        assert len(in_split(every, "train")) == 30
    assert in_split(every, "test") == []


def test_rows_that_are_the_same_text_are_on_one_side(tmp_path: Path) -> None:
    every = list(documents(data_set(tmp_path / "rows", ["a row of words"] * 40)))
    assert len({document.id for document in every}) == 40
    assert len({document.split_key for document in every}) == 1


# -- rows ------------------------------------------------------------------------------------------

CHAT = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (CHAT, r"lists of \{role, content\}"),
        (["a", "b"], "values of type list"),
        ({"answer": "yes"}, "values of type dict"),
        (17, "values of type int"),
        (0.5, "values of type float"),
        (True, "values of type bool"),
    ],
)
def test_a_column_that_is_not_text_is_named_with_its_type(
    tmp_path: Path, row: object, kind: str
) -> None:
    with pytest.raises(CorpusError, match=f"column 'text' holds {kind}"):
        list(documents(data_set(tmp_path / "rows", [row, row])))


def test_rows_without_text_are_passed_over(tmp_path: Path) -> None:
    found = list(documents(data_set(tmp_path / "rows", ["first", None, "", "fourth"])))
    assert [document.text for document in found] == ["first", "fourth"]


@pytest.mark.parametrize(
    ("part", "expected"),
    [("train[:10%]", 2), ("train[:3]", 3), ("train[18:]", 2), ("train[:2]+train[19:]", 3)],
)
def test_slices_are_read_as_the_hubs_library_writes_them(
    tmp_path: Path, part: str, expected: int
) -> None:
    spec = data_set(tmp_path / "rows", [f"row {index}" for index in range(20)])
    assert len(list(documents(f"{spec}::{part}"))) == expected


def test_a_prefix_has_the_names_of_the_whole_and_is_read_as_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    spec = data_set(tmp_path / "rows", [f"row {index}" for index in range(20)])
    whole = [(d.id, d.text) for d in documents(spec)]
    asked = []
    load = datasets.load_dataset

    def noting(*given: object, **named: object) -> object:
        asked.append(named["streaming"])
        return load(*given, **named)

    monkeypatch.setattr(datasets, "load_dataset", noting)
    assert [(d.id, d.text) for d in documents(f"{spec}::train[:5]")] == whole[:5]
    assert asked == [True]


def test_rows_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    every = list(documents(data_set(tmp_path / "rows", [f"row {index}" for index in range(30)])))
    every.reverse()
    every.sort(key=lambda document: document.order)
    assert [document.place for document in every] == list(range(30))


def test_lines_of_an_article_are_one_document(tmp_path: Path) -> None:
    lines = [
        *("", " = First = \n", " It begins . \n", " = = Part = = \n", " More . \n"),
        *(" = Second = \n", " Else . \n"),
    ]
    found = list(documents(data_set(tmp_path / "rows", lines)))
    assert [document.place for document in found] == [1, 5]
    assert "More" in found[0].text


def test_rows_that_do_not_parse_are_an_error_that_names_the_data_set(tmp_path: Path) -> None:
    spec = data_set(tmp_path / "rows", ["fine"])
    file = tmp_path / "rows" / "train.jsonl"
    file.write_text(file.read_text() + '\n{"text": "cut', encoding="utf-8")
    with pytest.raises(CorpusError, match=r"rows.*cannot be read"):
        list(documents(spec))
    with pytest.raises(CorpusError, match=r"rows.*cannot be read"):
        list(documents(f"{spec}::train[:5]"))


# -- files -----------------------------------------------------------------------------------------


def test_links_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some words")
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        for other in ("a", "b", "c"):
            (tmp_path / name / other).symlink_to(tmp_path)
    assert len(list(documents(f"text:{tmp_path}/**/*.txt"))) == 1


def test_pipes_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "text.txt").write_text("some words")
    assert len(list(documents(f"text:{tmp_path}/*.txt"))) == 1


def test_the_home_folder_may_be_abbreviated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "text.txt").write_text("some words")
    assert len(list(documents("text:~/*.txt"))) == 1
    assert len(list(documents("text:~/**/*.txt"))) == 1


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "**.txt/**", "[", "x/" * 3000])
def test_a_pattern_that_can_match_nothing_is_an_error(name: str) -> None:
    with pytest.raises(CorpusError):
        list(documents(f"text:{name}"))


def test_a_name_that_is_not_utf8_can_be_written_into_a_result(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/na\xffme.txt", "w") as file:
        file.write("some words")
    (found,) = documents(f"text:{tmp_path}/*.txt")
    found.id.encode("utf-8")


# -- size ------------------------------------------------------------------------------------------


def test_a_long_document_is_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "some words of no interest " * 60_000
    sizes = []
    call = type(TOKENIZER).__call__

    def noting(self: object, texts: list[str], **named: object) -> object:
        sizes.append(max(map(len, texts)))
        return call(self, texts, **named)

    monkeypatch.setattr(type(TOKENIZER), "__call__", noting)
    (ids,) = Encoder(TOKENIZER)([text])
    assert max(sizes) <= PIECE < len(text)
    assert ids.tolist()[:50] == TOKENIZER.encode(text[:200], add_special_tokens=False)[:50]


@pytest.mark.parametrize("text", ["a bb  ccc\n\ndddd e " * 40, "x" * 500, "", " ", "a" * 99 + " b"])
def test_pieces_are_the_text_and_end_between_words(text: str) -> None:
    found = list(pieces(text, size=100))
    assert "".join(found) == text
    assert all(len(piece) <= 100 for piece in found)
    if " " in text:
        assert not any(piece[-1].isspace() for piece in found[:-1])


@pytest.mark.parametrize(
    "changes",
    [{"length": 10**30}, {"count": 10**30}, {"seed": 2**64}, {"count": 10**9000}, {"seed": -1}],
)
def test_numbers_out_of_range_are_named(changes: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=next(iter(changes))):
        windows("package:networkx", TOKENIZER, **changes)  # type: ignore[arg-type]
