"""Documents → windows of equally many tokens, none of which crosses into another split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from headsurgeon.data.corpora import documents
from headsurgeon.data.document import Document
from headsurgeon.data.encoding import Encoder
from headsurgeon.data.splits import check_split, in_split
from headsurgeon.errors import CorpusError, SettingsError
from headsurgeon.files import sha256_text

# A document with more characters than this per window token is taken to fill a window without
# tokenising it first; tokenizers in use make 2 to 6 characters into a token.
_CHARACTERS_PER_TOKEN = 16
_NO_TOKEN = "none"
LONGEST = 2**24


@dataclass(frozen=True, eq=False)
class Windows:
    """Equal windows of tokens and where they come from.

    Attributes:
        tokens: token ids; the added first token, if any, included.
        documents: id of the document of each window; several joined short documents count as one,
            named after the first and the last.
        corpus: the corpus SPEC.
        split: `train`, `dev` or `test`.
        first_token: the token every window starts with, or `none` when nothing was added; the
            names of several are joined. `windows` takes it back.
        seed: seed of the selection.
        corpus_hash: SHA-256 over ids and texts of all documents of the corpus in the split.
        prefix: number of added tokens that every window starts with.
        separator: what stands between short documents that were joined.
    """

    tokens: Int[Tensor, "count length"]
    documents: tuple[str, ...]
    corpus: str
    split: str
    first_token: str
    seed: int
    corpus_hash: str
    prefix: int = 0
    separator: str = ""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length(self) -> int:
        """Tokens per window."""
        return int(self.tokens.shape[1])

    def take(self, count: int) -> "Windows":
        """The first `count` windows, which are those that `count` would have selected."""
        return replace(self, tokens=self.tokens[:count], documents=self.documents[:count])


@dataclass(frozen=True)
class _Source:
    """Documents that are cut into windows together; one, unless each is shorter than a window."""

    id: str
    texts: tuple[str, ...]
    separated: bool = True


def windows(
    corpus: str,
    tokenizer: PreTrainedTokenizerBase,
    split: str = "dev",
    length: int = 256,
    count: int | None = None,
    seed: int = 0,
    first_token: str = "tokenizer",
) -> Windows:
    """Cuts a corpus into windows of `length` tokens, each inside one document.

    Documents shorter than a window are joined in the order of their ids until they fill one, with
    the tokenizer's end-of-sequence token between them, or a blank line where it has none; those of
    packages with nothing, as the shipped models were trained. Texts
    that differ in nothing but white space are in one split (`in_split`).
    Windows are taken from the documents in turn, one from each before a second from any, so that a
    small count still sees as many documents as it can. A larger count begins with the smaller
    count's windows.

    Args:
        corpus: a SPEC, see `documents`.
        tokenizer: a Hugging Face tokenizer.
        split: `train`, `dev` or `test`.
        length: tokens per window, first token included; at least 2.
        count: windows wanted; None for all. Fewer are returned if the corpus has fewer.
        seed: seed of the selection; it does not change the split.
        first_token: `tokenizer` adds what the tokenizer itself puts first, `none` adds nothing,
            anything else is a token of the vocabulary, such as `</s>`, or what `Windows` recorded.

    Returns:
        The windows.

    Raises:
        CorpusError: no document in the split, less text than one window, or an unknown first token.
        SettingsError: length, count or split out of range.
        NetworkError: the Hub was needed and could not be reached.
    """
    _check_settings(length, count, seed)
    wanted_split = check_split(split)
    prefix, prefix_name = _prefix(tokenizer, first_token)
    body = length - len(prefix)
    if body < 1:
        raise SettingsError(f"length {length} leaves no room after first token {prefix_name}")
    found = sorted(in_split(documents(corpus), wanted_split), key=lambda document: document.order)
    if not any(document.text for document in found):
        raise CorpusError(
            f"{corpus} has no text in split {split}; 80 % of documents are in train, 10 % in dev, "
            "10 % in test: add documents or choose another split"
        )
    encoder = Encoder(tokenizer)
    rounds = _rounds(_sources(found, encoder, body), encoder, body, seed, count)
    chosen = [(name, [*prefix, *chunk]) for name, chunk in rounds]
    if not chosen:
        tokens = sum(len(ids) for ids in encoder([document.text for document in found]))
        raise CorpusError(
            f"{corpus} has {tokens} tokens in split {split}, fewer than one window of {length}; "
            "add text or choose a smaller --length"
        )
    return Windows(
        tokens=torch.tensor([ids for _, ids in chosen], dtype=torch.long),
        documents=tuple(name for name, _ in chosen),
        corpus=corpus,
        split=split,
        first_token=prefix_name,
        seed=seed,
        corpus_hash=sha256_text([part for item in found for part in (item.id, item.text)]),
        prefix=len(prefix),
        separator=encoder.separator_name,
    )


def as_windows(tokens: Windows | Tensor) -> Windows:
    """Windows as they are; the rows of a bare tensor of token ids as one document each.

    Raises:
        SettingsError: a tensor that does not hold integers, or not in two dimensions.
    """
    if isinstance(tokens, Windows):
        return tokens
    if not isinstance(tokens, Tensor):
        raise SettingsError(
            f"expected Windows or a tensor of token ids, got {type(tokens).__name__}; make one "
            "with torch.tensor"
        )
    whole = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
    if tokens.ndim != 2 or not whole:
        kind = str(tokens.dtype).removeprefix("torch.")
        raise SettingsError(
            f"expected token ids as integers of shape [count, length], got {kind} of shape "
            f"{list(tokens.shape)}; one window is tokens[None]"
        )
    ids = tokens.long()
    content = ids.cpu().contiguous().numpy().tobytes()
    return Windows(
        tokens=ids,
        documents=tuple(f"window-{index}" for index in range(len(ids))),
        corpus="tokens",
        split="none",
        first_token=_NO_TOKEN,
        seed=0,
        corpus_hash=sha256(str(list(ids.shape)).encode() + content).hexdigest(),
    )


def shortened(number: int) -> str:
    """A number for a message; Python refuses to spell out those of thousands of digits."""
    return str(number) if abs(number) < 10**30 else f"a number of {number.bit_length()} bits"


def _check_settings(length: int, count: int | None, seed: int) -> None:
    faults = []
    if not 2 <= length <= LONGEST:
        faults.append(f"length: expected 2 to {LONGEST} tokens, got {shortened(length)}")
    if count is not None and not 1 <= count < 2**63:
        faults.append(f"count: expected 1 to 2^63 − 1 windows, got {shortened(count)}")
    if not 0 <= seed < 2**63:
        faults.append(f"seed: expected a number from 0 to 2^63 − 1, got {shortened(seed)}")
    if faults:
        raise SettingsError("; ".join(faults))


def _prefix(tokenizer: PreTrainedTokenizerBase, first_token: str) -> tuple[list[int], str]:
    """The ids put before each window, and their name."""
    if first_token == _NO_TOKEN:
        return [], _NO_TOKEN
    if first_token in tokenizer.get_vocab() and first_token != "tokenizer":
        return [tokenizer.get_vocab()[first_token]], first_token
    own, name = _own_prefix(tokenizer)
    # several tokens are recorded under their joined name, which is no token of the vocabulary
    if first_token not in ("tokenizer", name):
        raise CorpusError(
            f"first token {first_token!r} is not in the tokenizer's vocabulary; expected "
            "`tokenizer`, `none` or one of its tokens"
        )
    return own, name


def _own_prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], str]:
    """What the tokenizer itself puts first, and its name."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    with_special = tokenizer.encode("a", add_special_tokens=True)
    for start in range(len(with_special) - len(plain) + 1):
        if with_special[start : start + len(plain)] == plain:
            ids = with_special[:start]
            return ids, "".join(tokenizer.convert_ids_to_tokens(ids)) or _NO_TOKEN
    return [], _NO_TOKEN


def _sources(found: Sequence[Document], encoder: Encoder, body: int) -> list[_Source]:
    """Long documents alone, short ones joined until they fill a window."""
    limit = body * _CHARACTERS_PER_TOKEN
    doubtful = [document for document in found if len(document.text) <= limit]
    lengths = [len(ids) for ids in encoder([item.text for item in doubtful])]
    sources = [_Source(item.id, (item.text,)) for item in found if len(item.text) > limit]
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


def _rounds(
    sources: Sequence[_Source],
    encoder: Encoder,
    body: int,
    seed: int,
    count: int | None,
) -> Iterator[tuple[str, list[int]]]:
    """Chunks of `body` tokens: one of each source, then a second of each, until `count`."""
    order = np.random.default_rng(seed).permutation(len(sources))
    waiting = [(sources[index].id, _chunks(sources[index], encoder, body, seed)) for index in order]
    taken = 0
    while waiting:
        still = []
        for name, chunks in waiting:
            if taken == count:
                return
            chunk = next(chunks, None)
            if chunk is not None:
                still.append((name, chunks))
                taken += 1
                yield name, chunk
        waiting = still


def _chunks(source: _Source, encoder: Encoder, body: int, seed: int) -> Iterator[list[int]]:
    """The whole chunks of a source in random order; tokenised when the first one is asked for."""
    ids = encoder.joined(source.texts, source.separated)
    # the source's own name seeds its order, so that it does not depend on which others were read
    name = int.from_bytes(sha256(source.id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    for chunk in np.random.default_rng([seed, name]).permutation(len(ids) // body):
        yield ids[chunk * body : (chunk + 1) * body].tolist()
