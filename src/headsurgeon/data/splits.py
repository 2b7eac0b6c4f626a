"""Train, dev or test, decided by a document's name or content alone.

The split depends on a salted hash of what the document is and on nothing else, above all on no
seed: whatever a run was trained on, the test documents of another run were never among it.

Guaranteed, within all that one call reads: texts that differ in nothing but white space are never
on both sides. For files of any folder and rows of a data set that holds between calls, too, since
their split is that of their content. The files of packages and chapters go by their names, as they
did when the shipped models were trained; they only move where the same call reads a copy of them.
Not guaranteed: that no passage of one text stands in another (a licence in every file, a quotation,
an edition with a word changed), or that rows of a data set which belong together are known to (but
see `hub.py` on articles).
"""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Literal, get_args

from headsurgeon.data.document import Document, content_key
from headsurgeon.errors import HeadsurgeonWarning, SettingsError

Split = Literal["train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Changing the salt or the shares moves documents between splits: models trained before would then
# have seen test text. Both are part of the file formats.
_SALT = "headsurgeon split 1:"
_TRAIN_SHARE, _DEV_SHARE = 0.8, 0.1


def split_of(document_id: str) -> Split:
    """The split a document belongs to: 80 % train, 10 % dev, 10 % test.

    Args:
        document_id: stable name of the document, such as its path.

    Returns:
        `train`, `dev` or `test`; always the same for the same name.
    """
    position = _position(document_id)
    if position < _TRAIN_SHARE:
        return "train"
    return "dev" if position < _TRAIN_SHARE + _DEV_SHARE else "test"


def held_out_half(key: str) -> Split:
    """`dev` or `test`, half and half, for text that is held out anyway."""
    return "dev" if _position(key) < 0.5 else "test"


def _position(key: str) -> float:
    digest = hashlib.sha256((_SALT + key).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def in_split(documents: Iterable[Document], split: Split) -> list[Document]:
    """The documents of one split; copies of one text are together, each of them kept.

    Where documents are named (the files of a package, chapters), copies may have names of different
    splits. All of them go where the first of train, dev, test has one: what was ever trained on
    under some name is tested on under none.

    Warns:
        HeadsurgeonWarning: one text is there several times, since every copy counts as a document.
    """
    copies: dict[str, list[Document]] = defaultdict(list)
    for document in documents:
        # there is nothing to leak in a text without words
        blank = not document.text.strip()
        copies[document.id if blank else content_key(document.text)].append(document)
    kept = []
    repeated = 0
    for group in copies.values():
        of_each = {each.split or split_of(each.split_key or each.id) for each in group}
        if min(of_each, key=SPLITS.index) == split:
            # what was put elsewhere by its place is left out instead of moved
            staying = [document for document in group if document.split in (None, split)]
            kept += staying
            repeated += len(staying) - 1
    if repeated:
        warnings.warn(
            f"{repeated} of {len(kept)} documents in split {split} are copies of others; they "
            "are kept in one split, but intervals take them for independent texts",
            category=HeadsurgeonWarning,
            stacklevel=3,
        )
    return kept


def check_split(split: str) -> Split:
    """The split of that name.

    Raises:
        SettingsError: there is no such split.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise SettingsError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
