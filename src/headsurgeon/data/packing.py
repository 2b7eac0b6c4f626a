"""Documents → runs of tokens as long as a window, packed in one of three ways (`packing_kinds`).

Only documents of one split are ever packed together. What is left at the end is dropped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from jaxtyping import Int

from headsurgeon.data.document import Document
from headsurgeon.data.encoding import Encoder
from headsurgeon.data.packing_kinds import Packing

BLANK_LINE = "\n\n"

# A document with more characters than this per token is taken to fill a window without tokenising
# it first; tokenizers in use make 2 to 6 characters into a token.
_CHARACTERS_PER_TOKEN = 16

Run = tuple[str, list[int]]
"""Name of a document, and the ids."""


@dataclass(frozen=True)
class _Source:
    """Documents that are cut into runs together; one, unless each is shorter than a run."""

    id: str
    texts: tuple[str, ...]
    separated: bool = True


def packed(
    documents: Sequence[Document], encoder: Encoder, body: int, packing: Packing, seed: int
) -> Iterator[Run]:
    """Runs of `body` tokens in an order drawn from the seed, each made when it is asked for.

    Within documents, one of each document comes before a second of any.

    Raises:
        SettingsError: blank lines with a tokenizer that does not tell where its tokens stand.
    """
    if packing == "documents":
        yield from _within(documents, encoder, body, seed)
    else:
        yield from _across(documents, encoder, body, packing, seed)


def separator_name(encoder: Encoder, packing: Packing) -> str:
    """What stands between documents that were joined."""
    return "blank line" if packing == "blank_lines" else encoder.separator_name


def _across(
    documents: Sequence[Document], encoder: Encoder, body: int, packing: Packing, seed: int
) -> Iterator[Run]:
    ids, owners = (_separated if packing == "separated" else _blank_lines)(documents, encoder)
    for chunk in np.random.default_rng(seed).permutation(len(ids) // body):
        part = slice(chunk * body, (chunk + 1) * body)
        # what most of it is of; two windows of one long document are then known to be alike
        yield documents[int(np.bincount(owners[part]).argmax())].id, ids[part].tolist()


def _separated(
    documents: Sequence[Document], encoder: Encoder
) -> tuple[Int[np.ndarray, " token"], Int[np.ndarray, " token"]]:
    """All ids, and for each the number of its document; a separator is of the one before it."""
    between = np.array(encoder.separator, dtype=np.int64)
    ids: list[Int[np.ndarray, " some"]] = []
    owners: list[Int[np.ndarray, " some"]] = []
    for index, document in enumerate(documents):
        (own,) = encoder([document.text])
        if not len(own):
            continue
        ids += [between, own] if ids else [own]
        owners += [np.full(len(between), owners[-1][-1])] if owners else []
        owners.append(np.full(len(own), index))
    return np.concatenate(ids or [between[:0]]), np.concatenate(owners or [between[:0]])


def _blank_lines(
    documents: Sequence[Document], encoder: Encoder
) -> tuple[Int[np.ndarray, " token"], Int[np.ndarray, " token"]]:
    """The same for texts that are joined before they are tokenised."""
    ids, starts = encoder.with_places(BLANK_LINE.join(document.text for document in documents))
    lengths = [len(document.text) + len(BLANK_LINE) for document in documents]
    return ids, np.searchsorted(np.cumsum(lengths), starts, side="right")


def _sources(documents: Sequence[Document], encoder: Encoder, body: int) -> list[_Source]:
    """Long documents alone, short ones joined until they fill a window."""
    limit = body * _CHARACTERS_PER_TOKEN
    doubtful = [document for document in documents if len(document.text) <= limit]
    lengths = [len(ids) for ids in encoder([item.text for item in doubtful])]
    sources = [_Source(item.id, (item.text,)) for item in documents if len(item.text) > limit]
    group: list[Document] = []
    filled = 0
    for document, size in zip(doubtful, lengths, strict=True):
        if size >= body:
            sources.append(_Source(document.id, (document.text,)))
        elif size:
            between = len(encoder.separator) if group and document.split_key else 0
            filled += size + between
            group.append(document)
        if filled >= body:
            sources.append(_joined(group))
            group, filled = [], 0
    return sorted(sources, key=lambda source: (source.id, source.texts))


def _joined(group: Sequence[Document]) -> _Source:
    first, last = group[0].id, group[-1].id
    # files of a package and chapters are joined as they were when the shipped models were trained
    separated = any(document.split_key for document in group)
    return _Source(f"{first}+…+{last}", tuple(document.text for document in group), separated)


def _within(documents: Sequence[Document], encoder: Encoder, body: int, seed: int) -> Iterator[Run]:
    """One chunk of each source, then a second of each, until there are none."""
    sources = _sources(documents, encoder, body)
    order = np.random.default_rng(seed).permutation(len(sources))
    waiting = [(sources[index].id, _chunks(sources[index], encoder, body, seed)) for index in order]
    while waiting:
        still = []
        for name, chunks in waiting:
            chunk = next(chunks, None)
            if chunk is not None:
                still.append((name, chunks))
                yield name, chunk
        waiting = still


def _chunks(source: _Source, encoder: Encoder, body: int, seed: int) -> Iterator[list[int]]:
    """The whole chunks of a source in random order; tokenised when the first one is asked for."""
    ids = encoder.joined(source.texts, source.separated)
    # the source's own name seeds its order, so that it does not depend on which others were read
    name = int.from_bytes(sha256(source.id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    for chunk in np.random.default_rng([seed, name]).permutation(len(ids) // body):
        yield ids[chunk * body : (chunk + 1) * body].tolist()
