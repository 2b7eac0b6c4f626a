"""Heads and what is known about them: frozen data, numpy only.

A head is written `L5H14` (layer 5, query head 14, both zero-based). Arrays are float64
[layer, head] unless a shape says otherwise.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from headsurgeon.attention_kinds import AttentionRan
from headsurgeon.errors import HeadError

if TYPE_CHECKING:
    import pandas

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


@dataclass(frozen=True)
class Provenance:
    """What a measurement was made on, written into every result.

    `attention` is what ran (`headsurgeon.attention_kinds`); `family` is the architecture, as the
    model's configuration calls it, empty in older files. `packing` is how documents became windows.
    `lengths` are the tokens of each text where they are unequal; `length` is then the longest.
    """

    model: str
    corpus: str
    split: str
    length: int
    count: int
    first_token: str
    seed: int
    corpus_hash: str
    dtype: str
    attention: AttentionRan
    family: str = ""
    packing: str = "documents"
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class HeadStats:
    """Statistics of every head over a set of windows.

    Attributes:
        values: for each name of `STATISTICS`, one value per window and head.
        row_quantiles: quantiles (`QUANTILE_LEVELS`) of the mass on position 0 over rows t ≥ 1.
        documents: the document each window comes from; the unit of every interval.
        slopes: effective ALiBi slope per head; 0 where there is no position bias.
        null_mass: `first_token_mass` of zero scores at that slope and length, fraction; of unequal
            texts the mean over them, each counting once, as in every other mean.
        provenance: model, corpus, window length and so on.
        null_by_length: the null at each length of unequal texts; empty where all are alike.

    In a layer without attention (in hybrids) all statistics and the null are NaN.
    """

    values: Mapping[str, Float[np.ndarray, "window layer head"]]
    row_quantiles: Float[np.ndarray, "window layer head level"]
    documents: tuple[str, ...]
    slopes: Float[np.ndarray, "layer head"]
    null_mass: Float[np.ndarray, "layer head"]
    provenance: Provenance
    null_by_length: Mapping[int, Float[np.ndarray, "layer head"]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of layers and of heads per layer."""
        layers, heads = self.slopes.shape
        return layers, heads

    @property
    def attends(self) -> Bool[np.ndarray, " layer"]:
        """Which layers have attention, and with it heads."""
        return np.asarray(~np.isnan(self.null_mass).all(axis=1))

    def mean(self, name: str) -> Float[np.ndarray, "layer head"]:
        """Mean over windows (or texts), each counting once whatever its length."""
        return np.asarray(self.values[name].mean(axis=0))

    def variance(self, name: str) -> Float[np.ndarray, "layer head"]:
        """Unbiased variance over windows; NaN for a single window."""
        if len(self.documents) < 2:
            return np.full(self.shape, np.nan)
        return np.asarray(self.values[name].var(axis=0, ddof=1))

    def per_document(self, name: str) -> Float[np.ndarray, "document layer head"]:
        """Mean of each document's windows, documents in order of first appearance."""
        membership = self.document_weights
        sums = np.einsum("dw,wlh->dlh", membership, self.values[name])
        return np.asarray(sums / membership.sum(axis=1)[:, None, None])

    def document_variance(self, name: str) -> Float[np.ndarray, "layer head"]:
        """Unbiased variance of the document means; NaN for a single document."""
        documents = self.per_document(name)
        if len(documents) < 2:
            return np.full(self.shape, np.nan)
        return np.asarray(documents.var(axis=0, ddof=1))

    @cached_property
    def document_weights(self) -> Float[np.ndarray, "document window"]:
        """1 where a window belongs to a document."""
        names = list(dict.fromkeys(self.documents))
        membership = np.zeros((len(names), len(self.documents)))
        for window, name in enumerate(self.documents):
            membership[names.index(name), window] = 1.0
        return membership

    @property
    def first_token_mass(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("first_token_mass")

    @property
    def first_token_mass_after_row0(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("first_token_mass_after_row0")

    @property
    def sink_rows(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("sink_rows")

    @property
    def entropy(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("entropy")

    @property
    def mean_distance(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("mean_distance")

    @property
    def previous_token_mass(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("previous_token_mass")

    @property
    def local_mass(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("local_mass")

    @property
    def output_norm(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("output_norm")

    @property
    def first_value_norm(self) -> Float[np.ndarray, "layer head"]:
        return self.mean("first_value_norm")

    def to_frame(self) -> "pandas.DataFrame":
        """One row per head: slope, null, and mean and variance of every statistic."""
        import pandas

        layer, head = np.indices(self.shape)
        columns: dict[str, Any] = {
            "layer": layer.ravel(),
            "head": head.ravel(),
            "slope": self.slopes.ravel(),
            "null_mass": self.null_mass.ravel(),
        }
        for name in STATISTICS:
            columns[name] = self.mean(name).ravel()
            columns[f"{name}_variance"] = self.variance(name).ravel()
        quantiles = self.row_quantiles.mean(axis=0)
        for index, level in enumerate(QUANTILE_LEVELS):
            columns[f"row_mass_q{round(100 * level):02d}"] = quantiles[..., index].ravel()
        return pandas.DataFrame(columns)
