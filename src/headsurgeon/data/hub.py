"""`hf:DATASET[:CONFIG][:SPLIT][:COLUMN]`: rows of a data set of the Hub, or of a local one.

SPLIT may be a slice as the Hub's library writes them: `train[:1000]`, `train[10%:20%]+test`. A
prefix that is counted in rows (`train[:1000]`) is read as a stream, so that no more of the data set
is downloaded or unpacked than those rows take.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from headsurgeon.data.document import Document, content_key
from headsurgeon.data.spec import Corpus
from headsurgeon.errors import CorpusError, HeadsurgeonError, NetworkError

_PREFIX = re.compile(r"(\w+)\[:(\d{1,15})\]")
# WikiText has a row per line; an article begins with a heading of one pair of equals signs
_ARTICLE = re.compile(r" = [^=\s](?:[^=]|=(?! $))* = \n?")
_LOOKED_AT = 1000


def hub_documents(corpus: Corpus) -> Iterator[Document]:
    """One document per row that has text, or per article where rows are the lines of articles.

    Raises:
        CorpusError: no such data set or column, a column that is not text, rows that cannot be
            read; names the row.
        NetworkError: the Hub was needed and could not be reached.
    """
    name = str(corpus).removeprefix("hf:")
    dataset, config, split, column = (*corpus.fields, "", "", "")[:4]
    split, column = split or "train", column or "text"
    local = Path(dataset).expanduser()
    known = local.resolve().name if local.exists() else dataset
    rows, config_name = _load(name, str(local) if local.exists() else dataset, config, split)
    texts = _texts(name, rows, column)
    yield from _documents(texts, f"{known}:{config_name}")


def _documents(texts: Iterator[tuple[str, int, str]], series: str) -> Iterator[Document]:
    first = list(islice(texts, _LOOKED_AT))
    lines = any(_ARTICLE.fullmatch(text) for _, _, text in first)
    article: list[str] = []
    start: tuple[str, int] = ("", 0)

    def finished() -> Iterator[Document]:
        whole = "".join(article)
        if whole.strip():
            # by its heading, so that the beginning of an article is where all of it is
            key = content_key(article[0] if lines else whole)
            yield Document(f"{series}:{start[0]}:{start[1]}", whole, key, start[1])

    for part, row, text in (*first, *texts):
        if not lines or _ARTICLE.fullmatch(text) or part != start[0]:
            yield from finished()
            article, start = [], (part, row)
        article.append(text)
    yield from finished()


def _texts(
    name: str, rows: Iterator[tuple[str, int, Mapping[str, Any]]], column: str
) -> Iterator[tuple[str, int, str]]:
    """Part, number and text of every row."""
    for part, number, row in rows:
        if column not in row:
            raise CorpusError(
                f"hf:{name}: no column {column!r}; it has {', '.join(row)}; "
                "name one: hf:DATASET:CONFIG:SPLIT:COLUMN"
            )
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise CorpusError(
                f"hf:{name}: column {column!r} holds {_kind(text)} (row {number}), expected text; "
                f"columns with text: {_text_columns(row) or 'none'}"
            )
        yield part, number, text or ""


def _kind(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"lists of {{{', '.join(map(str, value[0]))}}}"
    return f"values of type {type(value).__name__}"


def _text_columns(row: Mapping[str, Any]) -> str:
    return ", ".join(name for name, value in row.items() if isinstance(value, str))


def _load(
    name: str, dataset: str, config: str, split: str
) -> tuple[Iterator[tuple[str, int, Mapping[str, Any]]], str]:
    """Rows with the part and number they have in the whole data set, and the configuration."""
    import datasets

    prefix = _PREFIX.fullmatch(split)
    try:
        if prefix is not None:
            stream = datasets.load_dataset(dataset, config or None, split=prefix[1], streaming=True)
            numbered = enumerate(islice(stream, int(prefix[2])))
            rows = ((prefix[1], number, row) for number, row in numbered)
            config_name = stream.info.config_name
        else:
            whole = datasets.load_dataset(dataset, config or None, split=split, streaming=False)
            rows = (
                (part, number, row)
                for (part, number), row in zip(_row_names(whole, split), whole, strict=True)
            )
            config_name = whole.info.config_name
        return _explaining(name, rows), config_name
    except Exception as error:
        raise _explained(name, error) from error


def _explaining(
    name: str, rows: Iterator[tuple[str, int, Mapping[str, Any]]]
) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    """The same rows; what goes wrong between them is told as what went wrong before them."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:
            raise _explained(name, error) from error
        yield row


def _explained(name: str, error: Exception) -> HeadsurgeonError:
    """One error for whatever the library raises; it has no base class of its own for all of it."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    causes = _chain(error)
    # the network first: huggingface_hub derives some of these from FileNotFoundError and OSError
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return NetworkError(
                f"hf:{name}: the Hub refused the request ({_first_line(cause)}); check your access "
                "to the data set, or try again later"
            )
        if isinstance(cause, ConnectionError | TimeoutError | LocalEntryNotFoundError):
            return NetworkError(
                f"hf:{name}: the Hub could not be reached ({_first_line(cause)}); check the "
                "network, or use text files: --corpus 'text:folder/**/*.txt'"
            )
    if isinstance(error, FileNotFoundError):
        return CorpusError(f"hf:{name}: no such data set: {_first_line(error)}")
    reasons = dict.fromkeys(_first_line(cause) for cause in causes)
    return CorpusError(f"hf:{name}: cannot be read: {'; '.join(reasons)}")


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _row_names(rows: Any, split: str) -> Iterator[tuple[str, int]]:
    """Split and number of each row in the whole data set, whatever slice of it was asked for."""
    import datasets

    sizes = {name: found.num_examples for name, found in (rows.info.splits or {}).items()}
    for part in datasets.ReadInstruction.from_spec(split).to_absolute(sizes):
        for row in range(part.from_ or 0, sizes[part.splitname] if part.to is None else part.to):
            yield part.splitname, row


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
