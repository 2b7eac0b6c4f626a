"""Attention of some heads on a short text, small enough to keep with a result. No torch."""

import base64
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from headsurgeon.records import HeadName
from headsurgeon.results import Result

SAMPLES = "attention.json"
# of the untouched model, where both lie in one folder
SAMPLES_BEFORE = "attention-untouched.json"
# tokens of the piece, and heads that are kept: 80 kB at most
MOST_TOKENS, MOST_HEADS = 48, 64


class AttentionSamples(Result):
    """Attention maps of some heads of one model on one piece of text; `attention.json`.

    Attributes:
        model: id of the model.
        corpus, split: where the text is from.
        tokens: the text, token by token, as the tokenizer decodes each by itself.
        maps: by head, the probabilities of row after row up to the diagonal, each a byte
            (255 is 1), in base64.
    """

    kind: ClassVar[str] = "attention_samples"

    model: str
    corpus: str
    split: str
    tokens: Annotated[tuple[str, ...], Field(min_length=2, max_length=MOST_TOKENS)]
    maps: Annotated[Mapping[HeadName, str], Field(max_length=MOST_HEADS)]

    @model_validator(mode="after")
    def _a_byte_for_each_pair(self) -> "AttentionSamples":
        expected = len(self.tokens) * (len(self.tokens) + 1) // 2
        for head, text in self.maps.items():
            try:
                size = len(base64.b64decode(text, validate=True))
            except ValueError as error:
                raise ValueError(f"maps.{head}: expected base64") from error
            if size != expected:
                raise ValueError(f"maps.{head}: expected {expected} bytes, got {size}")
        return self

    def map(self, head: HeadName) -> Float[np.ndarray, "row key"]:
        """The map of one head, to the nearest 1/255."""
        count = len(self.tokens)
        weights = np.zeros((count, count))
        kept = np.frombuffer(base64.b64decode(self.maps[head]), dtype=np.uint8)
        weights[np.tril_indices(count)] = kept / 255.0
        return weights


def packed_map(attention: Float[np.ndarray, "row key"]) -> str:
    """A map as `AttentionSamples` keeps it."""
    lower = attention[np.tril_indices(len(attention))]
    return base64.b64encode(np.rint(255.0 * lower).astype(np.uint8).tobytes()).decode("ascii")
