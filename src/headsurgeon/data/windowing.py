"""Corpora → windows of equally many tokens, none of which crosses into another split."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import torch
from transformers import PreTrainedTokenizerBase

from headsurgeon.arguments import checked
from headsurgeon.data.chat import Render, renderer
from headsurgeon.data.corpora import documents_of
from headsurgeon.data.document import Document
from headsurgeon.data.encoding import Encoder
from headsurgeon.data.first_token import first_tokens
from headsurgeon.data.kept_ids import kept_ids
from headsurgeon.data.mixing import turns
from headsurgeon.data.packing import Run, packed, separator_name
from headsurgeon.data.packing_kinds import check_packing
from headsurgeon.data.spec import Component, mixture, parse
from headsurgeon.data.splits import check_split, in_split
from headsurgeon.data.window import Windows
from headsurgeon.errors import CorpusError, HeadsurgeonWarning, SettingsError
from headsurgeon.files import sha256_text

LONGEST = 2**24


@checked
def windows(
    corpus: str | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    split: str = "dev",
    length: int = 256,
    count: int | None = None,
    seed: int = 0,
    first_token: str = "tokenizer",
    *,
    weights: Sequence[float] = (),
    packing: str = "documents",
) -> Windows:
    """Cuts a corpus, or a mixture of several, into windows of `length` tokens.

    Texts that differ in nothing but white space are in one split, also across the corpora of a
    mixture (`in_split`).

    By default each window lies inside one document. Documents shorter than a window are joined in
    the order of their ids until they fill one, with the tokenizer's end-of-sequence token between
    them, or a blank line where it has none; those of packages with nothing, as the shipped models
    were trained. Windows are taken from the documents in turn, one from each before a second from
    any, so that a small count still sees as many documents as it can. A larger count begins with
    the smaller count's windows.

    In a mixture the corpora take turns by weight: among the first n windows each has its share of n
    to within one window. The windows of each are, in their order, those that it gives alone, and
    nothing but the weights decides whose turn it is; so runs with the same seed of windows see the
    same tokens in the same order. The mixture ends when a corpus whose turn it is has no window
    left, since the weights would not hold any longer.

    Args:
        corpus: a SPEC, see `headsurgeon.data.spec`, or several, which are mixed.
        tokenizer: a Hugging Face tokenizer.
        split: `train`, `dev` or `test`.
        length: tokens per window, first token included; at least 2.
        count: windows wanted; None for all. Fewer are returned if the corpus has fewer.
        seed: seed of the selection; it does not change the split.
        first_token: `tokenizer` adds what the tokenizer itself puts first, `none` adds nothing,
            anything else is a token of the vocabulary, such as `</s>`, or what `Windows` recorded.
        weights: a positive number per corpus, relative to each other; by default all are alike.
        packing: `documents`, `separated` or `blank_lines`, see
            `headsurgeon.data.packing_kinds`.

    Returns:
        The windows.

    Warns:
        HeadsurgeonWarning: a mixture that ends before `count`; copies, see `in_split`.

    Raises:
        CorpusError: no document in the split, less text than one window, or an unknown first token.
        SettingsError: length, count, split, weights or packing out of range.
        NetworkError: the Hub was needed and could not be reached.
    """
    _check_settings(length, count, seed)
    wanted_split, wanted_packing = check_split(split), check_packing(packing)
    prefix, prefix_name = first_tokens(tokenizer, first_token)
    body = length - len(prefix)
    if body < 1:
        raise SettingsError(f"length {length} leaves no room after first token {prefix_name}")
    spec = mixture(corpus, weights)
    components = parse(spec)
    documents_read = in_split(_read(components, renderer(tokenizer, prefix_name)), wanted_split)
    parts = [_of(component, documents_read, split) for component in components]
    hashes = [
        sha256_text([text for item in part for text in (item.id, item.text)]) for part in parts
    ]
    encoders = [
        Encoder(tokenizer, kept_ids(tokenizer, part, part_hash))
        for part, part_hash in zip(parts, hashes, strict=True)
    ]
    runs = [
        packed(part, encoder, body, wanted_packing, seed)
        for part, encoder in zip(parts, encoders, strict=True)
    ]
    taken = list(islice(_in_turn(components, runs), count))
    for encoder in encoders:
        encoder.kept.save()
    if count is None or len(taken) < count:
        # whose turn it was when there was nothing left
        last = next(islice(turns([each.weight for each in components]), len(taken), None))
        if last not in islice(turns([each.weight for each in components]), len(taken)):
            raise CorpusError(
                _too_short(components[last], parts[last], encoders[last], split, length)
            )
        if len(components) > 1 and count is not None:
            warnings.warn(
                f"{components[last].spec} has no more windows of {length} tokens in split {split}, "
                f"so the mixture ends after {len(taken)} of {count}; give it less weight, or "
                "expect the windows to repeat in training",
                category=HeadsurgeonWarning,
                stacklevel=2,
            )
    return Windows(
        tokens=torch.tensor([[*prefix, *ids] for _, ids in taken], dtype=torch.long),
        documents=tuple(name for name, _ in taken),
        corpus=spec,
        split=split,
        first_token=prefix_name,
        seed=seed,
        corpus_hash=_corpus_hash(components, hashes),
        prefix=len(prefix),
        separator=separator_name(encoders[0], wanted_packing),
        packing=wanted_packing,
    )


def _read(components: Sequence[Component], render: Render) -> Iterator[Document]:
    """All documents of all corpora, each with the corpus it is of."""
    for component in components:
        for document in documents_of(component.corpora, render):
            yield replace(document, corpus=component.spec)


def _of(component: Component, documents_read: Sequence[Document], split: str) -> list[Document]:
    """The documents of one corpus, in order."""
    part = [document for document in documents_read if document.corpus == component.spec]
    if not any(document.text for document in part):
        raise CorpusError(
            f"{component.spec} has no text in split {split}; 80 % of documents are in train, 10 % "
            "in dev, 10 % in test: add documents or choose another split"
        )
    return sorted(part, key=lambda document: document.order)


def _in_turn(components: Sequence[Component], runs: Sequence[Iterator[Run]]) -> Iterator[Run]:
    """One run of each corpus whose turn it is, until it has none."""
    for index in turns([component.weight for component in components]):
        run = next(runs[index], None)
        if run is None:
            return
        name, ids = run
        yield (f"{components[index].spec}::{name}" if len(components) > 1 else name), ids


def _too_short(
    component: Component, part: Sequence[Document], encoder: Encoder, split: str, length: int
) -> str:
    tokens = sum(len(ids) for ids in encoder([document.text for document in part]))
    return (
        f"{component.spec} has {tokens} tokens in split {split}, fewer than one window of "
        f"{length}; add text or choose a smaller --length"
    )


def _corpus_hash(components: Sequence[Component], hashes: Sequence[str]) -> str:
    if len(components) == 1:
        return hashes[0]
    return sha256_text(
        [
            text
            for component, component_hash in zip(components, hashes, strict=True)
            for text in (str(component.weight), component.spec, component_hash)
        ]
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
