"""`hf:DATASET[:CONFIG][:SPLIT][:COLUMN][?OPTION]…`: rows of a data set, of the Hub or a local one.

SPLIT may be a slice as the Hub's library writes them: `train[:1000]`, `train[10%:20%]+test`. Slices
that end at a counted row (`train[:1000]`) are read as a stream, so that no more of the data set is
downloaded or unpacked than those rows take. Rows of a slice are divided into train, dev and test as
any others are. Options:

    ?first=N-documents, ?first=N-characters
            An ordered prefix of the data set, read as a stream, is the train split: its first N
            documents, or documents until they have N characters. What follows is held out, a
            quarter as much, half of it (by content) for dev and half for test; texts that stand in
            the prefix as well are left out of it. Nothing beyond is read.
    ?chat   COLUMN (then `messages` by default) holds conversations, which are rendered with the
            tokenizer's chat template.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from headsurgeon.data.chat import Render, is_conversation, said
from headsurgeon.data.document import Document, content_key
from headsurgeon.data.hub_rows import Row, rows_of
from headsurgeon.data.spec import Corpus
from headsurgeon.data.splits import held_out_half
from headsurgeon.errors import CorpusError

_FIRST = re.compile(r"first=([1-9]\d{0,14})-(documents|characters)")
# the held-out text beside a prefix: as 20 % beside 80 %
_HELD_OUT = 4
# WikiText has a row per line; an article begins with a heading of one pair of equals signs
_ARTICLE = re.compile(r" = [^=\s](?:[^=]|=(?! $))* = \n?")
_LOOKED_AT = 1000


@dataclass(frozen=True)
class _Text:
    """One row as text: where it stands, and what decides its split if that is not the text."""

    part: str
    row: int
    text: str
    key: str | None = None


@dataclass(frozen=True)
class _First:
    """An ordered prefix: so many documents, or documents with so many characters."""

    amount: int
    unit: str

    def of(self, document: Document) -> int:
        return 1 if self.unit == "documents" else len(document.text)


def hub_documents(corpus: Corpus, render: Render | None = None) -> Iterator[Document]:
    """One document per row that has text, or per article where rows are the lines of articles.

    Args:
        render: makes text of a conversation; needed for `?chat`.

    Raises:
        CorpusError: no such data set or column, a column that is not text, rows that cannot be
            read; names the row. Or a prefix beyond which there is nothing.
        NetworkError: the Hub was needed and could not be reached.
    """
    name = str(corpus).removeprefix("hf:")
    chat, first = _options(corpus)
    if chat and render is None:
        raise CorpusError(f"hf:{name}: ?chat needs a tokenizer, whose template it is rendered with")
    dataset, config, split, column = (*corpus.fields, "", "", "")[:4]
    local = Path(os.path.expanduser(dataset))
    known = local.resolve().name if local.exists() else dataset
    rows, config_name = rows_of(
        name,
        str(local) if local.exists() else dataset,
        config,
        split or "train",
        stream=first is not None,
    )
    column = column or ("messages" if chat else "text")
    texts = _texts(name, rows, column, render if chat else None)
    documents = _documents(texts, f"{known}:{config_name}")
    yield from documents if first is None else _prefix_and_rest(name, documents, first)


def _options(corpus: Corpus) -> tuple[bool, _First | None]:
    chat, first = False, None
    for option in corpus.options:
        prefix = _FIRST.fullmatch(option)
        if option == "chat":
            chat = True
        elif prefix is not None and first is None:
            first = _First(int(prefix[1]), prefix[2])
        else:
            raise CorpusError(
                f"{corpus}: expected the options ?chat, and once ?first=N-documents or "
                f"?first=N-characters, got ?{option}"
            )
    return chat, first


def _prefix_and_rest(name: str, documents: Iterator[Document], first: _First) -> Iterator[Document]:
    """Documents of a prefix for training, then some held-out ones that are no copies of them."""
    taken, held_out = 0, 0
    trained_on: set[str] = set()
    for document in documents:
        key = content_key(document.text)
        if taken < first.amount:
            taken += first.of(document)
            trained_on.add(key)
            yield replace(document, split="train")
        elif held_out * _HELD_OUT < first.amount:
            if key not in trained_on:
                held_out += first.of(document)
                yield replace(document, split=held_out_half(key))
        else:
            return
    if not held_out:
        raise CorpusError(
            f"hf:{name}: nothing is left to hold out: of the {first.amount} {first.unit} asked for "
            f"it has {taken}, and no other text after them; ask for fewer"
        )


def _documents(texts: Iterator[_Text], series: str) -> Iterator[Document]:
    first = list(islice(texts, _LOOKED_AT))
    lines = any(_ARTICLE.fullmatch(each.text) for each in first)
    article: list[_Text] = []

    def finished() -> Iterator[Document]:
        article_text = "".join(each.text for each in article)
        if article_text.strip():
            start = article[0]
            # by its heading, so that the beginning of an article is where all of it is
            key = start.key or content_key(start.text if lines else article_text)
            yield Document(f"{series}:{start.part}:{start.row}", article_text, key, start.row)

    for each in chain(first, texts):
        if not lines or _ARTICLE.fullmatch(each.text) or (article and each.part != article[0].part):
            yield from finished()
            article = []
        article.append(each)
    yield from finished()


def _texts(name: str, rows: Iterator[Row], column: str, render: Render | None) -> Iterator[_Text]:
    """The text of every row; empty where the column is."""
    for part, number, row in rows:
        if column not in row:
            raise CorpusError(
                f"hf:{name}: no column {column!r}; it has {', '.join(row)}; "
                "name one: hf:DATASET:CONFIG:SPLIT:COLUMN"
            )
        value = row[column]
        if value is None:
            yield _Text(part, number, "")
        elif render is not None:
            yield _conversation(
                f"hf:{name}: column {column!r}, row {number}", part, number, value, render
            )
        elif isinstance(value, str):
            yield _Text(part, number, value)
        else:
            texts = [name for name, value in row.items() if isinstance(value, str)]
            raise CorpusError(
                f"hf:{name}: column {column!r} holds {_kind(value)} (row {number}), expected text; "
                f"columns with text: {', '.join(texts) or 'none'}"
                + ("; ?chat renders conversations" if is_conversation(value) else "")
            )


def _conversation(where: str, part: str, number: int, value: Any, render: Render) -> _Text:
    if not is_conversation(value):
        raise CorpusError(
            f"{where}: expected a list of messages with role and content, got {_kind(value)}"
        )
    try:
        text = render(value)
    except CorpusError as error:
        raise CorpusError(f"{where}: {error}") from error
    except Exception as error:
        # templates are code of the model's authors and raise what they like
        raise CorpusError(
            f"{where}: the tokenizer's chat template cannot render it: {error}"
        ) from error
    return _Text(part, number, text, content_key(said(value)))


def _kind(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"lists of {{{', '.join(map(str, value[0]))}}}"
    return f"values of type {type(value).__name__}"
