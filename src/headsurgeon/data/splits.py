"""Train, dev or test, decided by a document's name alone.

The split depends on a salted hash of the id and on nothing else, above all on no seed: whatever a
run was trained on, the test documents of another run were never among it.
"""

import hashlib
from typing import Literal, get_args

from headsurgeon.errors import SettingsError

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
    digest = hashlib.sha256((_SALT + document_id).encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < _TRAIN_SHARE:
        return "train"
    return "dev" if position < _TRAIN_SHARE + _DEV_SHARE else "test"


def check_split(split: str) -> Split:
    """The split of that name.

    Raises:
        SettingsError: there is no such split.
    """
    for known in SPLITS:
        if split == known:
            return known
    raise SettingsError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
