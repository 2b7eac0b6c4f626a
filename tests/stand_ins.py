"""Stand-ins for text: windows of given tokens, documents named by one letter each."""

from torch import Tensor

from headsurgeon.data import Windows


def windows_of(tokens: Tensor, documents: str | None = None, corpus: str = "stand-in") -> Windows:
    """Windows with the given tokens; each its own document unless letters group them."""
    names = documents or [f"d{index}" for index in range(len(tokens))]
    return Windows(
        tokens=tokens,
        documents=tuple(names),
        corpus=corpus,
        split="test",
        first_token="none",
        seed=0,
        corpus_hash=corpus,
    )
