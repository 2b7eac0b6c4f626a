"""Data sets: ordered prefixes with the rest held out, slices, conversations."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headsurgeon.data import documents, windows
from headsurgeon.data.document import Document
from headsurgeon.data.hub import _First, _prefix_and_rest
from headsurgeon.data.splits import SPLITS, in_split
from headsurgeon.errors import CorpusError, HeadsurgeonWarning
from tests.char_tokenizer import char_tokenizer

TOKENIZER = char_tokenizer()
CHAT = char_tokenizer()
CHAT.chat_template = (
    "{% for message in messages %}</s>[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"
)


def rows(folder: Path, values: list[object], column: str = "text") -> str:
    folder.mkdir()
    lines = (json.dumps({column: value}) + "\n" for value in values)
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    return f"hf:{folder}"


def places(found: list[Document]) -> list[int | None]:
    return sorted(document.place for document in found)  # type: ignore[type-var]


# -- a prefix --------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=40),
    amount=st.integers(1, 200),
    unit=st.sampled_from(["documents", "characters"]),
)
@settings(max_examples=60)
def test_a_prefix_is_as_short_as_it_can_be_and_the_rest_a_quarter_of_it(
    sizes: list[int], amount: int, unit: str
) -> None:
    every = [
        Document(f"d:{index}", f"{index:03d}" + "x" * size, place=index)
        for index, size in enumerate(sizes)
    ]
    first = _First(amount, unit)
    worth = [first.of(document) for document in every]
    end = next((n for n in range(len(every) + 1) if sum(worth[:n]) >= amount), None)
    if end is None or end == len(every):
        with pytest.raises(CorpusError, match="nothing is left to hold out"):
            list(_prefix_and_rest("d", iter(every), first))
        return
    found = list(_prefix_and_rest("d", iter(every), first))
    assert places([d for d in found if d.split == "train"]) == list(range(end))
    rest = [d.place for d in found if d.split != "train"]
    assert rest == list(range(end, len(found)))
    held_out = worth[end : len(found)]
    assert sum(held_out[:-1]) * 4 < amount
    assert sum(held_out) * 4 >= amount or len(found) == len(every)


@pytest.mark.parametrize("first", ["40-documents", "440-characters"])
def test_only_what_is_asked_for_is_read_from_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    import datasets

    spec = rows(tmp_path / "rows", [f"row {index:04d}..." for index in range(3000)])
    seen = []
    load = datasets.load_dataset

    class Counted:
        def __init__(self, stream: datasets.IterableDataset) -> None:
            self.info, self.stream = stream.info, stream

        def __iter__(self) -> Iterator[dict[str, str]]:
            for row in self.stream:
                seen.append(row)
                yield row

    def noting(*given: object, **named: object) -> Counted:
        assert named["streaming"] is True
        return Counted(load(*given, **named))

    monkeypatch.setattr(datasets, "load_dataset", noting)
    every = list(documents(f"{spec}?first={first}"))
    parts = {split: in_split(every, split) for split in SPLITS}
    assert places(parts["train"]) == list(range(40))
    assert places(parts["dev"] + parts["test"]) == list(range(40, 50))
    assert parts["dev"]
    assert parts["test"]
    # articles are looked for in the first thousand rows
    assert len(seen) < 1500


def test_a_copy_beyond_the_prefix_is_left_out(tmp_path: Path) -> None:
    texts = [f"row {index}" for index in range(8)]
    spec = rows(tmp_path / "rows", [*texts, "row 3", " row  5 ", "something else", "another text"])
    every = list(documents(f"{spec}?first=8-documents"))
    assert places(every) == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]
    assert len(in_split(every, "train")) == 8


def test_windows_of_a_prefix_are_in_the_split_of_their_place(tmp_path: Path) -> None:
    spec = rows(tmp_path / "rows", [f"row {index:03d} of some words" for index in range(100)])
    train = windows(f"{spec}?first=60-documents", TOKENIZER, "train", length=10)
    held_out = windows(f"{spec}?first=60-documents", TOKENIZER, "test", length=10)
    assert len(train) == 60 * 2
    assert {int(name.rpartition(":")[2]) for name in held_out.documents} <= set(range(60, 75))


# -- slices ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("train[:4]", range(4)),
        ("train[3:7]", range(3, 7)),
        ("train[15:20]", range(15, 20)),
        ("train[10%:20%]", range(2, 4)),
        ("train[-2:]", range(18, 20)),
    ],
)
def test_a_slice_has_the_rows_and_names_of_the_whole(
    tmp_path: Path, part: str, expected: range
) -> None:
    spec = rows(tmp_path / "rows", [f"row {index}" for index in range(20)])
    found = list(documents(f"{spec}::{part}"))
    assert [document.place for document in found] == list(expected)
    assert [document.text for document in found] == [f"row {index}" for index in expected]
    whole = {document.id for document in documents(spec)}
    assert {document.id for document in found} <= whole


# -- conversations ---------------------------------------------------------------------------------

TALK = [{"role": "user", "content": "hello"}, {"role": "bot", "content": "good day"}]


def test_a_conversation_is_rendered_with_the_tokenizers_template(tmp_path: Path) -> None:
    spec = rows(tmp_path / "chats", [TALK, None, TALK[:1]], "messages")
    found = list(documents(f"{spec}?chat", CHAT))
    assert [d.text for d in found] == ["</s>[user]hello</s>[bot]good day", "</s>[user]hello"]
    named = documents(f"{spec}:::messages?chat", CHAT)
    assert [d.id for d in named] == [d.id for d in found]


def test_the_first_token_is_not_put_before_a_conversation_twice(tmp_path: Path) -> None:
    spec = rows(
        tmp_path / "chats", [[{"role": "user", "content": f"n{n}"}] for n in range(30)], "c"
    )
    found = windows(f"{spec}:::c?chat", CHAT, "train", length=6, first_token="</s>")
    assert CHAT.decode(found.tokens[0]).startswith("</s>[user")
    without = windows(f"{spec}:::c?chat", CHAT, "train", length=6, first_token="none")
    assert CHAT.decode(without.tokens[0]).startswith("</s>[user")


def test_a_conversation_has_the_same_split_under_every_template(tmp_path: Path) -> None:
    spec = rows(tmp_path / "chats", [TALK, TALK[:1]], "messages")
    other = char_tokenizer()
    other.chat_template = "{% for message in messages %}{{ message['content'] }};{% endfor %}"
    found = [list(documents(f"{spec}?chat", each)) for each in (CHAT, other)]
    assert found[0][0].text != found[1][0].text
    assert [d.split_key for d in found[0]] == [d.split_key for d in found[1]]


def test_conversations_that_cannot_be_rendered_are_refused_in_words(tmp_path: Path) -> None:
    spec = rows(tmp_path / "chats", [TALK], "messages")
    with pytest.raises(CorpusError, match="needs a tokenizer"):
        list(documents(f"{spec}?chat"))
    with pytest.raises(CorpusError, match="row 0: the tokenizer has no chat template"):
        list(documents(f"{spec}?chat", TOKENIZER))
    with pytest.raises(CorpusError, match=r"columns with text: none; \?chat renders"):
        list(documents(f"{spec}:::messages", CHAT))
    strict = char_tokenizer()
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(CorpusError, match="roles must alternate"):
        list(documents(f"{spec}?chat", strict))
    odd = rows(tmp_path / "odd", [[{"from": "a", "value": "b"}]], "messages")
    with pytest.raises(CorpusError, match=r"with role and content, got lists of \{from, value\}"):
        list(documents(f"{odd}?chat", CHAT))


@pytest.mark.parametrize(
    "option",
    [
        "first=0-documents",
        "first=ten-documents",
        "first=5-words",
        "chats",
        "",
        "first=5-documents?x",
    ],
)
def test_options_that_do_not_exist_are_refused_with_those_that_do(option: str) -> None:
    with pytest.raises(CorpusError, match=r"expected the options \?chat"):
        list(documents(f"hf:some/set?{option}"))


# -- slices that come to less than was asked for ---------------------------------------------------


@pytest.mark.parametrize("cut", ["train[20:]", "train[20:30]", "train[54:]", "train[10:10]"])
def test_a_slice_without_rows_is_refused(tmp_path: Path, cut: str) -> None:
    corpus = rows(tmp_path / "d", [f"text {number}" for number in range(20)])
    with pytest.raises(CorpusError, match=r"train\[.*(no row|cannot be read)"):
        list(documents(f"{corpus}::{cut}"))


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("train[15:40]", "holds 5 rows, where 25 were asked for"),
        ("train[:21]", "holds 20 rows, where 21 were asked for"),
        ("train[19:30]", "holds a single row, where 11 were asked for"),
        ("train[19:]", "holds a single row, all of it in one split"),
        ("train[95%:]", "holds a single row"),
    ],
)
def test_a_slice_that_comes_to_less_than_was_asked_for_says_so(
    tmp_path: Path, cut: str, said: str
) -> None:
    corpus = rows(tmp_path / "d", [f"text {number}" for number in range(20)])
    with pytest.warns(HeadsurgeonWarning, match=said):
        assert list(documents(f"{corpus}::{cut}"))
