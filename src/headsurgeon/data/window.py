"""Equal windows of tokens and where they come from."""

from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from jaxtyping import Int
from torch import Tensor

from headsurgeon.data.packing_kinds import Packing
from headsurgeon.errors import SettingsError

# stands where a first token would be named
NO_TOKEN = "none"


@dataclass(frozen=True, eq=False)
class Windows:
    """Equal windows of tokens and where they come from.

    Attributes:
        tokens: token ids; the added first token, if any, included.
        documents: id of the document of each window; several joined short documents count as one,
            named after the first and the last. Where windows cross documents it is the document
            that most of the window is of; in a mixture it begins with the corpus.
        corpus: the corpus SPEC; `windows` takes it back.
        split: `train`, `dev` or `test`.
        first_token: the token every window starts with, or `none` when nothing was added; the
            names of several are joined. `windows` takes it back.
        seed: seed of the selection.
        corpus_hash: SHA-256 over ids and texts of all documents of the corpus in the split.
        prefix: number of added tokens that every window starts with.
        separator: what stands between documents that were joined.
        packing: how documents became windows, see `headsurgeon.data.packing_kinds`.
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
    packing: Packing = "documents"

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length(self) -> int:
        """Tokens per window."""
        return int(self.tokens.shape[1])

    def take(self, count: int) -> "Windows":
        """The first `count` windows, which are those that `count` would have selected."""
        return replace(self, tokens=self.tokens[:count], documents=self.documents[:count])

    def skip(self, count: int) -> "Windows":
        """The windows after the first `count`."""
        return replace(self, tokens=self.tokens[count:], documents=self.documents[count:])


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
    integers = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
    if tokens.ndim != 2 or not integers:
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
        first_token=NO_TOKEN,
        seed=0,
        corpus_hash=sha256(str(list(ids.shape)).encode() + content).hexdigest(),
    )
