"""Token ids kept between calls: a text is tokenised once per tokenizer, not once per process.

One file per tokenizer and per documents of a corpus in a split, in the folder `tokens` of the cache
(`HEADSURGEON_CACHE`). It is only ever a copy: what is missing, damaged, somebody else's or cannot
be written is tokenised again, without a word. Together the files take at most `LIMIT` bytes; those
that were not used for longest go first.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import tokenizers
import transformers
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from headsurgeon.data.document import Document
from headsurgeon.errors import WriteError
from headsurgeon.files import replacing
from headsurgeon.models.smollm2 import cache_folder

FOLDER = "tokens"
# of all files together, and what one of them may hold
LIMIT = 2**29
_MOST_IDS = LIMIT // 16
# fewer characters are tokenised in less time than it takes to find out whether they were before
WORTH_KEEPING = 2**18
# changes whenever texts are cut or encoded in another way
_SCHEMA = "headsurgeon token ids 1"
_NAME = re.compile(r"[0-9a-f]{64}\.npz")
_HASH = 32


class KeptIds:
    """Ids of texts that were tokenised before, and of those that are tokenised now.

    Attributes:
        path: the file; None for ids that are kept as long as this object is.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._ids: dict[bytes, np.ndarray] = {} if path is None else _read(path)
        self._size = sum(map(len, self._ids.values()))
        # characters tokenised since
        self._new = 0

    def get(self, text: str) -> Int[np.ndarray, " token"] | None:
        """Ids of a text; None where it has to be tokenised."""
        ids = self._ids.get(_digest(text))
        return None if ids is None else ids.astype(np.int64)

    def add(self, text: str, ids: Int[np.ndarray, " token"]) -> None:
        """Keeps the ids of a text, as long as there is room."""
        if self._size + len(ids) <= _MOST_IDS:
            self._ids[_digest(text)] = ids.astype(np.uint32)
            self._size += len(ids)
            self._new += len(text)

    def save(self) -> None:
        """Writes the file if enough was added; of two processes the later one's stays."""
        if self.path is None or self._new < WORTH_KEEPING:
            return
        with suppress(OSError, WriteError):
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    digests=np.frombuffer(b"".join(self._ids), dtype=np.uint8),
                    lengths=np.array([len(ids) for ids in self._ids.values()], dtype=np.int64),
                    ids=np.concatenate(list(self._ids.values())),
                )
            _make_room(self.path.parent)


def kept_ids(
    tokenizer: PreTrainedTokenizerBase, documents: Sequence[Document], documents_hash: str
) -> KeptIds:
    """What is kept of the documents; nothing yet of few, or where ids may not be kept.

    Args:
        tokenizer: ids of the fast ones of `transformers` are kept, whose content can be hashed.
        documents: of one corpus in one split.
        documents_hash: SHA-256 of them.
    """
    if sum(len(document.text) for document in documents) < WORTH_KEEPING:
        return KeptIds()
    settings = _settings_of(tokenizer)
    if settings is None:
        return KeptIds()
    digest = hashlib.sha256("\0".join([_SCHEMA, *settings, documents_hash]).encode())
    # a user without a home has no cache
    with suppress(RuntimeError):
        return KeptIds(cache_folder() / FOLDER / f"{digest.hexdigest()}.npz")
    return KeptIds()


def _settings_of(tokenizer: PreTrainedTokenizerBase) -> list[str] | None:
    """All that decides about ids, as texts; None where that is not known, or left to chance."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    own = type(tokenizer).__module__.startswith("transformers.")
    if not own or backend is None or getattr(backend.model, "dropout", None):
        return None
    # the first call takes padding and truncation off, which the tokenizer's file may ask for
    tokenizer([""], add_special_tokens=False)
    return [
        transformers.__version__,
        tokenizers.__version__,
        type(tokenizer).__qualname__,
        str(getattr(tokenizer, "split_special_tokens", False)),
        backend.to_str(),
    ]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _read(path: Path) -> dict[bytes, np.ndarray]:
    """Ids by the hash of their text; none where there is no such file, or not one of ours."""
    try:
        # the archive holds a checksum of each table
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            digests, lengths, ids = (file[name] for name in ("digests", "lengths", "ids"))
        kinds = [(table.dtype, table.ndim) for table in (digests, lengths, ids)]
        known = kinds == [(np.uint8, 1), (np.int64, 1), (np.uint32, 1)]
        if not known or lengths.min() < 0 or lengths.sum() != len(ids):
            return {}
        keys = digests.tobytes()
        if len(keys) != _HASH * len(lengths):
            return {}
    # there are a dozen kinds on files that are no archives of tables
    except Exception:
        return {}
    with suppress(OSError):
        os.utime(path)
    ends = np.cumsum(lengths)
    return {
        keys[_HASH * index : _HASH * (index + 1)]: ids[end - length : end]
        for index, (length, end) in enumerate(zip(lengths.tolist(), ends.tolist(), strict=True))
    }


def _make_room(folder: Path) -> None:
    """Removes the files that were not used for longest, until the rest is within the limit."""
    ours = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    known = sorted(((path.stat(), path) for path in ours), key=lambda each: -each[0].st_mtime)
    total = 0
    for status, path in known:
        total += status.st_size
        if total > LIMIT:
            path.unlink(missing_ok=True)
