"""Heads by name, and the names of their verdicts and statistics: no torch, no numpy.

A head is written `L5H14` (layer 5, query head 14, both zero-based).
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from headsurgeon.errors import HeadError

# Words for readers as much as values, so the fourth is spelled as English spells it, in files too;
# names of settings, rules and starts have underscores.
Verdict = Literal["healthy", "sink", "dead", "low-entropy"]
VERDICTS: tuple[Verdict, ...] = ("healthy", "sink", "dead", "low-entropy")
# stands where a head's verdict would, in a layer that has no attention; it counts nowhere
NO_ATTENTION = "no attention"
SICK: frozenset[str] = frozenset({"sink", "dead"})

# What is measured for every window and head, in the order of tables.
STATISTICS: dict[str, str] = {
    "first_token_mass": "mean attention probability on position 0 over the rows that see it, share",
    "first_token_mass_after_row0": "the same without row 0, which is always 1, fraction",
    "sink_rows": "share of query rows with more than 0.9 on position 0, row 0 included, fraction",
    "entropy": "mean Shannon entropy of the attention rows, nats",
    "mean_distance": "mean of t − j under the attention rows, tokens",
    "previous_token_mass": "mean probability on position t − 1 over rows t ≥ 1, fraction",
    "local_mass": "mean probability on positions t, t − 1 and t − 2, fraction",
    "output_norm": "mean norm of the head's output-projected vector over the layer's mean, ratio",
    "first_value_norm": "norm of the value at position 0 over the mean norm of the others, ratio",
}
QUANTILE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_HEAD_NAME = re.compile(r"L([0-9]{1,9})H([0-9]{1,9})", re.IGNORECASE)


class HeadId(NamedTuple):
    """One attention head: zero-based layer and query head."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head}"

    @classmethod
    def parse(cls, text: "str | HeadId | tuple[int, int]") -> "HeadId":
        """Reads `L5H14`; pairs pass through.

        Raises:
            HeadError: the text is not of that form.
        """
        if not isinstance(text, str):
            return cls(*text)
        match = _HEAD_NAME.fullmatch(text.strip())
        if match is None:
            raise HeadError(f"expected a head such as L5H14 (layer 5, head 14), got {text!r}")
        return cls(int(match[1]), int(match[2]))


def parse_heads(heads: Iterable["str | HeadId | tuple[int, int]"]) -> tuple[HeadId, ...]:
    """Several heads, sorted, each once."""
    return tuple(sorted({HeadId.parse(head) for head in heads}))


def check_heads(
    heads: Iterable[HeadId],
    layers: int,
    heads_per_layer: int,
    attention_layers: Iterable[int] | None = None,
) -> None:
    """Raises `HeadError`, naming every head that a model of that shape does not have.

    Args:
        attention_layers: the layers that have heads; by default all.
    """
    heads = list(heads)
    outside = [h for h in heads if not (0 <= h.layer < layers and 0 <= h.head < heads_per_layer)]
    if outside:
        names = ", ".join(str(head) for head in outside)
        raise HeadError(
            f"{names}: the model has layers 0–{layers - 1} and heads 0–{heads_per_layer - 1}"
        )
    attending = set(range(layers) if attention_layers is None else attention_layers)
    missing = [head for head in heads if head.layer not in attending]
    if missing:
        names = ", ".join(str(head) for head in missing)
        raise HeadError(
            f"{names}: there is no attention in that layer, so it has no heads; the layers that "
            f"attend are {', '.join(str(layer) for layer in sorted(attending))}"
        )
