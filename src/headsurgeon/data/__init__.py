"""Text in, windows of tokens out: corpora, splits, windows."""

from headsurgeon.data.corpora import documents
from headsurgeon.data.document import Document
from headsurgeon.data.splits import SPLITS, Split, split_of
from headsurgeon.data.windows import Windows, as_windows, windows

__all__ = [
    "SPLITS",
    "Document",
    "Split",
    "Windows",
    "as_windows",
    "documents",
    "split_of",
    "windows",
]
