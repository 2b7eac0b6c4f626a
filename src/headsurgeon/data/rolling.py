"""Documents → rolling windows as lm-evaluation-harness makes them, to compare figures with it.

Its `loglikelihood_rolling` (`lm_eval/models/huggingface.py` and `utils.get_rolling_token_windows`,
version 0.4.13) predicts every token of a document, the first from a prefix token. Windows of L
tokens follow one another; each after the first sees the last token of the one before, and the last
one is filled up with as much of what stands before it as fits.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from headsurgeon.arguments import checked
from headsurgeon.data.corpora import documents
from headsurgeon.data.document import Document
from headsurgeon.data.splits import check_split, in_split
from headsurgeon.data.window import NO_TOKEN
from headsurgeon.errors import CorpusError, SettingsError
from headsurgeon.files import sha256_text

ALL = "all"


@dataclass(frozen=True, eq=False)
class RollingWindows:
    """Windows of unequal length that together predict every token of their documents once.

    Attributes:
        tokens: ids of each window, what is seen and what is predicted.
        predicted: how many of the last ids of each window are predicted.
        documents: the document of each window.
        corpus, split, corpus_hash: where they are from; split `all` where none was taken.
        length: most tokens that a window sees.
        first_token: what the first token of a document is predicted from.
        words, bytes: of all documents, as lm-evaluation-harness counts them.
    """

    tokens: tuple[Int[Tensor, "_"], ...]
    predicted: tuple[int, ...]
    documents: tuple[str, ...]
    corpus: str
    split: str
    corpus_hash: str
    length: int
    first_token: str
    words: int
    bytes: int

    def __len__(self) -> int:
        return len(self.tokens)


@checked
def rolling_windows(
    corpus: str,
    tokenizer: PreTrainedTokenizerBase,
    split: str = "test",
    length: int = 2048,
    count: int | None = None,
    first_token: str = "tokenizer",
) -> RollingWindows:
    """Reads documents whole, as lm-evaluation-harness would.

    Args:
        corpus: a SPEC, see `headsurgeon.data.spec`; no mixture.
        tokenizer: encodes each document with whatever it puts around a text by itself, unless the
            document begins with the prefix token already.
        split: `train`, `dev`, `test`, or `all` for a comparison with a tool that knows no splits.
        length: most tokens that a window sees, lm-evaluation-harness' `max_length`.
        count: documents, in their order; None for all. Empty ones do not count.
        first_token: `tokenizer` for the tokenizer's bos token, or its eos token where it has none;
            otherwise a token of its vocabulary.

    Raises:
        CorpusError: no document, or a token that the vocabulary does not have.
        SettingsError: length or count below 1, an unknown split, or no first token.
    """
    if length < 1 or (count is not None and count < 1):
        raise SettingsError(f"expected a length and a count of at least 1, got {length}, {count}")
    prefix, name = _prefix(tokenizer, first_token)
    texts = _documents(corpus, tokenizer, split)[:count]
    if not texts:
        raise CorpusError(f"{corpus} has no text in split {split}; choose another, or --split all")
    windows = [
        (torch.tensor(ids), predicted, document.id)
        for document in texts
        for ids, predicted in _rolled(_encoded(document, tokenizer, prefix), prefix, length)
    ]
    return RollingWindows(
        tokens=tuple(ids for ids, _, _ in windows),
        predicted=tuple(predicted for _, predicted, _ in windows),
        documents=tuple(document for _, _, document in windows),
        corpus=corpus,
        split=split,
        corpus_hash=sha256_text([text for each in texts for text in (each.id, each.text)]),
        length=length,
        first_token=name,
        words=sum(len(re.split(r"\s+", document.text)) for document in texts),
        bytes=sum(len(document.text.encode("utf-8", "surrogatepass")) for document in texts),
    )


def _documents(corpus: str, tokenizer: PreTrainedTokenizerBase, split: str) -> list[Document]:
    read = documents(corpus, tokenizer)
    of_split = list(read) if split == ALL else in_split(read, check_split(split))
    return sorted((each for each in of_split if each.text), key=lambda document: document.order)


def _prefix(tokenizer: PreTrainedTokenizerBase, first_token: str) -> tuple[int, str]:
    if first_token == NO_TOKEN:
        raise SettingsError(
            "like lm-eval the first token of a document is predicted, too, and so from something; "
            "expected first token `tokenizer` or a token"
        )
    if first_token == "tokenizer":
        own = [
            (number, str(token))
            for number, token in (
                (tokenizer.bos_token_id, tokenizer.bos_token),
                (tokenizer.eos_token_id, tokenizer.eos_token),
            )
            if isinstance(number, int)
        ]
        if not own:
            raise CorpusError(
                "the tokenizer has neither a bos nor an eos token to predict the first token of a "
                "document from; name one with --first-token"
            )
        return own[0]
    vocabulary = tokenizer.get_vocab()
    if first_token not in vocabulary:
        raise CorpusError(f"first token {first_token!r} is not in the tokenizer's vocabulary")
    return vocabulary[first_token], first_token


def _encoded(document: Document, tokenizer: PreTrainedTokenizerBase, prefix: int) -> list[int]:
    begun = document.text.startswith(str(tokenizer.decode([prefix])))
    encoded = tokenizer(document.text, add_special_tokens=not begun, verbose=False)
    return list(encoded["input_ids"])


def _rolled(ids: Sequence[int], prefix: int, length: int) -> Iterator[tuple[list[int], int]]:
    """Ids of each window and how many of its last are predicted."""
    first = min(length, len(ids))
    yield [prefix, *ids[:first]], first
    for start in range(first, len(ids), length):
        end = min(start + length, len(ids))
        yield list(ids[end - length - 1 : end]), end - start
