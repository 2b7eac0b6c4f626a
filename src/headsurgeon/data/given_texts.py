"""Given texts, short and unequal, read whole: a paragraph to diagnose, a list of probes to score.

They are not a corpus: nothing is cut, joined, drawn or split. Texts of one length run together and
no text is ever padded, so a text's figures do not depend on what stands beside it.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from headsurgeon.arguments import checked
from headsurgeon.data.encoding import Encoder
from headsurgeon.data.first_token import first_tokens
from headsurgeon.data.shipped_texts import TEXTS, shipped_file
from headsurgeon.data.spec import GIVEN, parse
from headsurgeon.data.window import Windows, as_windows
from headsurgeon.errors import CorpusError, InputError
from headsurgeon.files import parse_json, read_text, sha256_text, shorten

NO_SPLIT = "none"
Source = str | Path | Sequence[str | Path] | Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Texts:
    """Whole texts of unequal length; `measure`, `evaluate` and `ablate` take them as they are.

    Attributes:
        tokens: token ids of each text; the added first token, if any, included.
        documents: name of each text, no two alike; each is a document of its own.
        corpus: what the texts are called together.
        first_token: the token every text starts with, or `none` when nothing was added.
        corpus_hash: SHA-256 over names and texts.
        prefix: number of added tokens that every text starts with.
    """

    tokens: tuple[Int[Tensor, "_"], ...]
    documents: tuple[str, ...]
    corpus: str
    first_token: str
    corpus_hash: str
    prefix: int = 0

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each text, the first one included."""
        return tuple(len(ids) for ids in self.tokens)

    @property
    def length(self) -> int:
        """Tokens of the longest."""
        return max(self.lengths)

    def take(self, count: int) -> "Texts":
        """The first `count` texts."""
        return replace(self, tokens=self.tokens[:count], documents=self.documents[:count])

    def by_length(self) -> list[tuple[list[int], Windows]]:
        """The texts of each length as windows, shortest first, and which texts they are."""
        return [
            (places, self._windows(places))
            for length in sorted(set(self.lengths))
            for places in [[at for at, own in enumerate(self.lengths) if own == length]]
        ]

    def _windows(self, places: Sequence[int]) -> Windows:
        return Windows(
            tokens=torch.stack([self.tokens[place] for place in places]),
            documents=tuple(self.documents[place] for place in places),
            corpus=self.corpus,
            split=NO_SPLIT,
            first_token=self.first_token,
            seed=0,
            corpus_hash=self.corpus_hash,
            prefix=self.prefix,
        )


@checked
def texts(
    source: Source,
    tokenizer: PreTrainedTokenizerBase,
    *,
    first_token: str = "tokenizer",
    name: str | None = None,
) -> Texts:
    """Reads texts that are given one by one.

    Args:
        source: a text; a `Path`, whose file is one text, or, where it ends in `.json`, a list of
            texts or an object of texts by name; several of these; or texts by name.
        tokenizer: a Hugging Face tokenizer.
        first_token: as `headsurgeon.windows`.
        name: what the texts are called together; by default the file, or `texts`.

    Raises:
        CorpusError: no text, a text of fewer than two tokens, a file that cannot be read.
    """
    named = _named(source)
    if not named:
        raise CorpusError("expected at least one text, got none")
    prefix, prefix_name = first_tokens(tokenizer, first_token)
    encoded = [[*prefix, *ids.tolist()] for ids in Encoder(tokenizer)(list(named.values()))]
    for key, ids in zip(named, encoded, strict=True):
        if len(ids) < 2:
            raise CorpusError(
                f"{key} ({shorten(repr(named[key]), 40)}) has {len(ids)} tokens; expected at least "
                "2, since the first is predicted from nothing: lengthen it, or add a first token"
            )
    single = source.name if isinstance(source, Path) else "texts"
    return Texts(
        tokens=tuple(torch.tensor(ids, dtype=torch.long) for ids in encoded),
        documents=tuple(named),
        corpus=single if name is None else name,
        first_token=prefix_name,
        corpus_hash=sha256_text([part for item in named.items() for part in item]),
        prefix=len(prefix),
    )


def given_file(corpus: str) -> Path | None:
    """The file of a SPEC such as `texts:FILE` or `texts:own/probes`; None for any other SPEC.

    Raises:
        CorpusError: no SPEC, given texts mixed or pooled with others, or none of that name in the
            package (`shipped_texts`).
    """
    corpora = [each for component in parse(corpus) for each in component.corpora]
    if all(each.kind != GIVEN for each in corpora):
        return None
    if len(corpora) > 1:
        raise CorpusError(
            f"{corpus}: given texts are read whole and by themselves; put them into one file"
        )
    name = corpora[0].fields[0]
    return shipped_file(name, TEXTS) or Path(os.path.expanduser(name))


def equal_parts(windows: Windows | Texts | Tensor) -> list[Windows]:
    """The same as windows of equal length: one set, or one per length of texts.

    Raises:
        SettingsError: a tensor that does not hold token ids [count, length].
    """
    if isinstance(windows, Texts):
        return [part for _, part in windows.by_length()]
    return [as_windows(windows)]


def _named(source: Source) -> dict[str, str]:
    """Texts by name, in order."""
    if isinstance(source, Mapping):
        return _checked(source, "texts")
    if isinstance(source, Path):
        return _of_file(source)
    if isinstance(source, str):
        return {"text 0": source}
    named: dict[str, str] = {}
    for index, each in enumerate(source):
        if not isinstance(each, str | Path):
            raise CorpusError(
                f"text {index}: expected a text or a Path, got {type(each).__name__}; decode it"
            )
        of_source = _of_file(each) if isinstance(each, Path) else {f"text {index}": each}
        twice = sorted(named.keys() & of_source.keys())
        if twice:
            raise CorpusError(f"{twice[0]} is given twice; name the texts, or give it once")
        named |= of_source
    return named


def _of_file(path: Path) -> dict[str, str]:
    try:
        content = read_text(path)
        if path.suffix.lower() != ".json":
            return {path.name: content}
        # strictly: of two texts of one name one would be lost
        texts = parse_json(content)
    except (InputError, ValueError) as error:
        raise CorpusError(f"{path} cannot be read as text: {error}") from error
    if isinstance(texts, list):
        texts = {f"{path.name} {index}": text for index, text in enumerate(texts)}
    if not isinstance(texts, dict):
        raise CorpusError(
            f"{path}: expected a list of texts, or an object of texts by name, got "
            f"{type(texts).__name__}"
        )
    return _checked(texts, str(path))


def _checked(texts: Mapping[str, object], where: str) -> dict[str, str]:
    named: dict[str, str] = {}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise CorpusError(f"{where}: {name}: expected a text, got {type(text).__name__}")
        named[name] = text
    return named
