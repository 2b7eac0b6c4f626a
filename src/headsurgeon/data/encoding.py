"""Text to token ids, in pieces where a text is so long that its encoding would fill the memory."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from headsurgeon.data.kept_ids import KeptIds
from headsurgeon.errors import CorpusError, SettingsError

# A tokenizer takes some hundred bytes per token while it works. A text below this is encoded in one
# go; a longer one is cut where a single space or line break stands between two words, which byte-
# level tokenizers do not notice. One that puts a space before every text does, once per piece.
PIECE = 1 << 20


class Encoder:
    """A tokenizer that adds nothing, and what it puts between documents that are joined.

    Attributes:
        separator: ids between joined documents.
        separator_name: the token, or `blank line`.
        kept: ids of texts that were tokenised before.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, kept: KeptIds | None = None) -> None:
        self._tokenizer = tokenizer
        self.kept = KeptIds() if kept is None else kept
        end = tokenizer.eos_token_id
        if isinstance(end, int):
            self.separator, self.separator_name = [end], str(tokenizer.eos_token)
        else:
            self.separator, self.separator_name = self._ids(["\n\n"])[0].tolist(), "blank line"

    def __call__(self, texts: Sequence[str]) -> list[Int[np.ndarray, " token"]]:
        """Ids of each text.

        Raises:
            CorpusError: a text holds what is no character.
        """
        for text in texts:
            _check_characters(text)
        known = [self.kept.get(text) for text in texts]
        missing = [text for text, ids in zip(texts, known, strict=True) if ids is None]
        made = self._ids(missing)
        for text, ids in zip(missing, made, strict=True):
            self.kept.add(text, ids)
        new = iter(made)
        return [next(new) if ids is None else ids for ids in known]

    def joined(self, texts: Sequence[str], separated: bool = True) -> Int[np.ndarray, " token"]:
        """Ids of several texts, with the separator between them if they are to be separated."""
        between = np.array(self.separator if separated else [], dtype=np.int64)
        woven = [part for ids in self(texts) for part in (between, ids)][1:]
        return np.concatenate(woven)

    def with_places(self, text: str) -> tuple[Int[np.ndarray, " token"], Int[np.ndarray, " token"]]:
        """Ids of a text, and the character at which each token begins.

        Raises:
            SettingsError: the tokenizer does not tell where its tokens stand.
            CorpusError: the text holds what is no character.
        """
        if not self._tokenizer.is_fast:
            raise SettingsError(
                "packing blank_lines needs a tokenizer that tells where its tokens stand (a fast "
                "one); choose packing documents or separated"
            )
        _check_characters(text)
        ids, places, start = [], [], 0
        for piece in pieces(text):
            encoded = self._tokenizer(
                piece, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            ids.append(np.array(encoded["input_ids"], dtype=np.int64))
            begins = [begin + start for begin, _ in encoded["offset_mapping"]]
            places.append(np.array(begins, dtype=np.int64))
            start += len(piece)
        return np.concatenate(ids), np.concatenate(places)

    def _ids(self, texts: Sequence[str]) -> list[Int[np.ndarray, " token"]]:
        if any(len(text) > PIECE for text in texts):
            return [
                np.concatenate([self._ids([piece])[0] for piece in pieces(text)]) for text in texts
            ]
        if not texts:
            return []
        # not verbose: documents are longer than a model's context by intention
        encoded = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [np.array(ids, dtype=np.int64) for ids in encoded["input_ids"]]


def _check_characters(text: str) -> None:
    """Refuses half of a surrogate pair, which JSON and YAML can spell and no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = ascii(text[max(0, error.start - 20) : error.start + 20])
        raise CorpusError(
            f"a text holds half of a surrogate pair, at character {error.start} ({near}); expected "
            "whole characters: write the file again in UTF-8"
        ) from error


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """The text in pieces of at most `size` characters, cut between words where there are any."""
    start = 0
    while len(text) - start > size:
        end = start + size
        cut = next((place for place in range(end, start, -1) if _between_words(text, place)), end)
        yield text[start:cut]
        start = cut
    yield text[start:]


def _between_words(text: str, place: int) -> bool:
    around = text[place - 1 : place + 2]
    return [character.isspace() for character in around] == [False, True, False]
