"""What is measured of every head: statistics per window, and what they were measured on. No torch.

Arrays are float64 [layer, head] unless a shape says otherwise.
"""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Bool, Float
from pydantic import BeforeValidator, Field, model_validator

from headsurgeon.attention_kinds import AttentionRan, ran_in_diagnosis
from headsurgeon.files import shorten
from headsurgeon.heads import QUANTILE_LEVELS, STATISTICS
from headsurgeon.records import Record, Seed
from headsurgeon.results import Array

if TYPE_CHECKING:
    import pandas


def _length(key: Any) -> Any:
    # JSON has names alone
    named = isinstance(key, str) and re.fullmatch("[1-9][0-9]{0,9}", key)
    return int(key) if named else key


class Provenance(Record):
    """What a measurement was made on, written into every result.

    `attention` is what ran (`headsurgeon.attention_kinds`); `family` is the architecture, as the
    model's configuration calls it, empty in older files. `packing` is how documents became windows.
    `lengths` are the tokens of each text where they are unequal; `length` is then the longest.
    `loaded_with` is which tokenizer and trust the model was read with, where they were given.
    """

    model: str
    corpus: str
    split: str
    length: Annotated[int, Field(ge=2, lt=2**31)]
    count: Annotated[int, Field(ge=1, lt=2**31)]
    first_token: str
    seed: Seed
    corpus_hash: str
    dtype: str
    attention: Annotated[AttentionRan, BeforeValidator(ran_in_diagnosis)]
    family: str = ""
    packing: str = "documents"
    lengths: tuple[Annotated[int, Field(ge=2, lt=2**31)], ...] = ()
    loaded_with: dict[str, str | bool] = Field(default_factory=dict)


class HeadStats(Record):
    """Statistics of every head over a set of windows.

    Attributes:
        provenance: model, corpus, window length and so on.
        slopes: effective ALiBi slope per head; 0 where there is no position bias.
        null_mass: `first_token_mass` of zero scores at that slope and length, fraction; of unequal
            texts the mean over them, each counting once, as in every other mean.
        null_by_length: the null at each length of unequal texts; empty where all are alike.
        documents: the document each window comes from; the unit of every interval.
        values: for each name of `STATISTICS`, one value per window and head.
        row_quantiles: quantiles (`QUANTILE_LEVELS`) of the mass on position 0 over rows t ≥ 1.

    In a layer without attention (in hybrids) all statistics and the null are NaN.
    """

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    provenance: Provenance
    slopes: Annotated[Float[np.ndarray, "layer head"], Array()]
    null_mass: Annotated[Float[np.ndarray, "layer head"], Array()]
    null_by_length: Mapping[
        Annotated[int, BeforeValidator(_length)],
        Annotated[Float[np.ndarray, "layer head"], Array()],
    ] = {}
    documents: Annotated[tuple[str, ...], Field(min_length=1)]
    values: Mapping[str, Annotated[Float[np.ndarray, "window layer head"], Array()]]
    row_quantiles: Annotated[Float[np.ndarray, "window layer head level"], Array()]

    @model_validator(mode="after")
    def _of_one_shape(self) -> "HeadStats":
        if missing := [name for name in STATISTICS if name not in self.values]:
            raise ValueError(f"values: expected {', '.join(missing)} as well")
        if unknown := [name for name in self.values if name not in STATISTICS]:
            raise ValueError(f"values: no statistic {shorten(', '.join(unknown), 200)}")
        shape = self.slopes.shape
        if 0 in shape:
            raise ValueError(f"slopes: expected [layer, head], got shape {list(shape)}")
        of_windows = (len(self.documents), *shape)
        for name, array in self.values.items():
            _check_shape(f"values.{name}", array, of_windows)
        _check_shape("row_quantiles", self.row_quantiles, (*of_windows, len(QUANTILE_LEVELS)))
        _check_shape("null_mass", self.null_mass, shape)
        for length, null in self.null_by_length.items():
            _check_shape(f"null_by_length.{length}", null, shape)
        return self

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


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(array.shape)}")
