"""A document: one text, the name it goes by, and what decides its split."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        id: stable name: a file, a row of a data set, a chapter; the same however the corpus was
            spelled and wherever the program was started.
        text: the text itself.
        split_key: what decides the split; by default the id. Where names say nothing (files of any
            folder, rows of a data set) it is the content, so that copies never part.
        place: number of the row in its data set, for the order; None elsewhere.
        corpus: the corpus of a mixture that it is of.
        split: its split where that is decided by its place in the data set; None elsewhere.
    """

    id: str
    text: str
    split_key: str = field(default="")
    place: int | None = None
    corpus: str = ""
    split: Literal["train", "dev", "test"] | None = None

    @property
    def order(self) -> tuple[str, int, str, str]:
        """Documents are sorted by this: rows of a data set by number, all others by name."""
        series = self.id if self.place is None else self.id.rpartition(":")[0]
        return series, self.place or 0, self.id, self.text


def content_key(text: str) -> str:
    """A key that texts share when they differ in nothing but white space."""
    return sha256(" ".join(text.split()).encode("utf-8", "surrogatepass")).hexdigest()
