"""Scores and how sure they are: losses per document, paired and crossed differences, shares.

Needs no torch; for the intervals see `bootstrap`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from jaxtyping import Float
from pydantic import (
    Field,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from headsurgeon.arguments import checked
from headsurgeon.attention_kinds import AttentionRan
from headsurgeon.bootstrap import DRAWS, LEVEL, check_units, mean_interval, resamples
from headsurgeon.errors import InputError
from headsurgeon.records import Exact
from headsurgeon.results import Array, Number, Result, Written

# Share of bootstrap draws that may be without a gap before a share of that gap is undefined.
LOST_DRAWS = 0.005
# What two evaluations must have in common beyond their documents. Ids alone are not enough: two
# translations share them by intention, and another seed takes other windows of the same documents.
_PAIRED = ("split", "length", "corpus_hash", "count", "first_token", "seed", "packing")


class Estimate(Result):
    """A number with its 95 % bootstrap interval; NaN bounds where there is a single document."""

    kind: ClassVar[str] = "estimate"

    value: Number
    low: Number
    high: Number

    def __init__(self, *numbers: Written, **named: Any) -> None:
        """Value, low and high, in this order or by name."""
        if len(numbers) > 3:
            raise TypeError(f"expected value, low and high, got {len(numbers)} numbers")
        super().__init__(**dict(zip(("value", "low", "high"), numbers, strict=False)), **named)

    @classmethod
    def of_mean(
        cls,
        values: Float[np.ndarray, " unit"],
        weights: Float[np.ndarray, " unit"],
        seed: int = 0,
    ) -> "Estimate":
        """The weighted mean of one number per unit."""
        return cls(*map(float, mean_interval(values, weights, rng=seed)))

    def __str__(self) -> str:
        return f"{self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0; never true without a finite interval."""
        return self.low > 0.0 and self._finite

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0; never true without a finite interval."""
        return self.high < 0.0 and self._finite

    @property
    def _finite(self) -> bool:
        return all(map(math.isfinite, (self.value, self.low, self.high)))


class Evaluation(Result):
    """Loss of one model on one set of windows.

    Attributes:
        model: id of the model.
        corpus, split, length, corpus_hash, count, first_token, seed: what it was evaluated on;
            `count` is the number of windows, `seed` that of their selection.
        stride: new tokens per window, added first tokens left out; windows never overlap.
        documents: ids, in order of first appearance.
        document_nll: summed negative log-likelihood of each document, nats.
        document_tokens: predicted tokens of each document, length − 1 per window.
        attention: what ran: `stock`, `tiles` or `kernel`, see `headsurgeon.attention_kinds`.
        packing: how documents became windows.
        document_lengths: all tokens of each document's windows, unpredicted first ones included;
            windows of one document are of one length. None in older results.

    As plain data, and in files, it has an entry `per_document` for each document, and beside them
    what follows: how many `documents` and `tokens`, `nll` with its interval, `perplexity`.
    """

    kind: ClassVar[str] = "losses"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    model: str
    corpus: str
    split: str
    length: int
    stride: int
    corpus_hash: str
    count: int
    first_token: str
    seed: int
    documents: tuple[str, ...]
    document_nll: Annotated[Float[np.ndarray, " document"], Array()]
    document_tokens: Annotated[Float[np.ndarray, " document"], Array()]
    attention: AttentionRan = "stock"
    packing: str = "documents"
    document_lengths: Annotated[Float[np.ndarray, " document"], Array()] | None = None

    @property
    def document_mean(self) -> Float[np.ndarray, " document"]:
        """Mean loss of each document, nats per predicted token."""
        return np.asarray(self.document_nll / self.document_tokens)

    @property
    def tokens(self) -> int:
        """Predicted tokens."""
        return int(self.document_tokens.sum())

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood, nats per predicted token."""
        return float(self.document_nll.sum() / self.document_tokens.sum())

    @property
    def perplexity(self) -> float:
        """exp(nll), ∞ where that is beyond float64."""
        return _exp(self.nll)

    @property
    def unequal(self) -> bool:
        """Whether it was evaluated on texts of unequal length, so that weighting matters."""
        return self.document_lengths is not None and not math.isclose(
            self.document_lengths.sum(), self.count * self.length
        )

    @property
    def nll_weighted_by_length(self) -> float:
        """Σ T·loss / Σ T, as the paper's code weights its texts; nats.

        `loss` is the mean over the T − 1 predicted tokens of a text of T, so that short texts count
        for more than their tokens. Equal to `nll` where all windows are of one length.
        """
        lengths = self.document_lengths
        if lengths is None:
            return self.nll
        return float((self.document_mean * lengths).sum() / lengths.sum())

    @property
    def perplexity_weighted_by_length(self) -> float:
        """exp(Σ T·loss / Σ T): comparable with the paper's figures, which `perplexity` is not."""
        return _exp(self.nll_weighted_by_length)

    def interval(self, seed: int = 0) -> Estimate:
        """The loss with its interval over documents."""
        return Estimate.of_mean(self.document_mean, self.document_tokens, seed)

    @model_validator(mode="before")
    @classmethod
    def _of_entries(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or "per_document" not in content:
            return content
        entries = _ENTRIES.validate_python(content["per_document"])
        kept = {key: content[key] for key in content if key not in _FOLLOW}
        lengths = [entry.length for entry in entries if entry.length is not None]
        if len(lengths) not in (0, len(entries)):
            raise ValueError("expected a length of every document, or of none")
        columns = {
            "document_nll": [entry.nll for entry in entries],
            "document_tokens": [entry.tokens for entry in entries],
            **({"document_lengths": lengths} if lengths else {}),
        }
        arrays = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
        return kept | arrays | {"documents": tuple(entry.document for entry in entries)}

    @model_validator(mode="after")
    def _one_of_each(self) -> "Evaluation":
        arrays = (self.document_nll, self.document_tokens, self.document_lengths)
        sizes = {len(array) for array in arrays if array is not None}
        if sizes != {len(self.documents)}:
            raise ValueError("expected a loss, tokens and length of each document")
        if np.isneginf(self.document_nll).any():
            raise ValueError("expected a loss above −∞ of each document")
        return self

    @model_serializer(mode="wrap")
    def _as_entries(self, plain: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        content = plain(self)
        columns = [content.pop(name) for name in ("documents", "document_nll", "document_tokens")]
        lengths = content.pop("document_lengths")
        entries = [
            {"document": name, "nll": nll, "tokens": int(tokens)}
            for name, nll, tokens in zip(*columns, strict=True)
        ]
        for entry, length in zip(entries, lengths or (), strict=False):
            entry["length"] = int(length)
        return content | {
            "documents": len(self.documents),
            "tokens": self.tokens,
            "nll": self.interval().model_dump(),
            "perplexity": self.perplexity,
            "perplexity_weighted_by_length": self.perplexity_weighted_by_length,
            "per_document": entries,
        }


class _Entry(Exact):
    """One document of an evaluation in a file."""

    document: str
    nll: Number
    tokens: int = Field(ge=1)
    length: int | None = Field(None, ge=1)


_ENTRIES = TypeAdapter(tuple[_Entry, ...])
_FOLLOW = (
    *("per_document", "documents", "tokens", "nll", "perplexity"),
    "perplexity_weighted_by_length",
)


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf


@checked
def difference(first: Evaluation, second: Evaluation, seed: int = 0) -> Estimate:
    """Loss of `first` minus loss of `second`, nats per token, paired over their documents.

    Raises:
        InputError: they were not evaluated on the same documents.
    """
    _check_paired((first, second))
    paired = first.document_mean - second.document_mean
    return Estimate.of_mean(paired, first.document_tokens, seed)


def difference_of_differences(
    first: tuple[Evaluation, Evaluation], second: tuple[Evaluation, Evaluation], seed: int = 0
) -> Estimate:
    """(first[0] − first[1]) − (second[0] − second[1]), nats per token, paired over documents.

    Raises:
        InputError: they were not evaluated on the same documents.
    """
    _check_paired((*first, *second))
    ours = first[0].document_mean - first[1].document_mean
    theirs = second[0].document_mean - second[1].document_mean
    return Estimate.of_mean(ours - theirs, first[0].document_tokens, seed)


@checked
def recovered_share(
    sick: Evaluation, repaired: Evaluation, ceiling: Evaluation, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """(NLL sick − NLL repaired) / (NLL sick − NLL ceiling), with an interval over documents.

    The ceiling is the healthy twin after the same extra training. Where the gap below it is not
    real — its interval includes 0, or more than 0.5 % of the draws have no gap — the share is
    undefined and all three numbers are NaN: near a gap of 0 a ratio means nothing, and its bounds
    jump. Draws without a gap are left out where they are fewer.

    Raises:
        InputError: they were not evaluated on the same documents.
    """
    _check_paired((sick, repaired, ceiling))
    if not difference(sick, ceiling, seed=seed).above_zero:
        return Estimate(math.nan, math.nan, math.nan)
    gained = sick.document_nll - repaired.document_nll
    reachable = sick.document_nll - ceiling.document_nll
    counts = resamples(len(sick.documents), draws, np.random.default_rng(seed))
    gaps = counts @ reachable
    real = gaps > 0.0
    if np.mean(~real) > LOST_DRAWS:
        return Estimate(math.nan, math.nan, math.nan)
    shares = (counts[real] @ gained) / gaps[real]
    low, high = np.quantile(shares, (0.025, 0.975))
    return Estimate(float(gained.sum() / reachable.sum()), float(low), float(high))


def crossed_difference(
    first: Sequence[Evaluation],
    second: Sequence[Evaluation],
    *,
    draws: int = DRAWS,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Loss of one arm minus that of another, nats per token, over documents and training seeds.

    Documents and seeds are resampled independently of each other, so that the interval holds for
    other text and for another training run alike (Owen 2007, "The pigeonhole bootstrap"; widened
    for small numbers, see `crossed_draws`). With one seed it is one over documents alone.

    Args:
        first, second: an evaluation per training seed, seeds paired, all on the same documents.
        draws: how many times both are drawn.
        level: coverage of the interval, between 0 and 1.
        seed: of the draws.

    Raises:
        InputError: not as many of the one as of the other, none, or not on the same documents.
    """
    if len(first) != len(second) or not first:
        raise InputError(f"expected pairs of evaluations, got {len(first)} and {len(second)}")
    _check_paired((*first, *second))
    paired = np.stack(
        [a.document_mean - b.document_mean for a, b in zip(first, second, strict=True)]
    )
    tokens = first[0].document_tokens
    check_units(len(tokens), tokens, draws, level)
    value, drawn = crossed_draws(paired, tokens, draws=draws, seed=seed)
    low, high = np.quantile(drawn, ((1.0 - level) / 2.0, (1.0 + level) / 2.0))
    return Estimate(value, float(low), float(high))


def crossed_draws(
    paired: Float[np.ndarray, "seed document"],
    tokens: Float[np.ndarray, " document"],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[float, Float[np.ndarray, " draw"]]:
    """The mean over documents and seeds, weighted by tokens, and its bootstrap distribution.

    Documents and seeds are resampled independently of each other. Drawn from a handful, they vary
    too little: n of them by (n - 1)/n of the variance, and as if that variance were known. So the
    draws are spread by what is missing and by √(f/χ²) with f degrees of freedom (Welch and
    Satterthwaite's, from both), which makes of a normal distribution Student's: with three seeds
    that differ an interval of 95 % is more than twice as wide as without.

    Args:
        paired: difference of two arms for each seed and document, nats per token.
        tokens: weight of each document.

    Returns:
        The mean, and as many draws of it; NaN where there is a single document.
    """
    seeds, documents = paired.shape
    share = tokens / tokens.sum()
    value = float((paired @ share).mean())
    if documents == 1:
        return value, np.full(draws, np.nan)
    rng = np.random.default_rng(seed)
    of_documents = resamples(documents, draws, rng) * tokens
    of_seeds = resamples(seeds, draws, rng) / seeds
    means = ((of_documents @ paired.T) * of_seeds).sum(axis=1) / of_documents.sum(axis=1)
    by_document = share * (paired.mean(axis=0) - value)
    variances = [(documents, float((by_document**2).sum()) * documents / (documents - 1))]
    if seeds > 1:
        variances.append((seeds, float((paired @ share).var(ddof=1)) / seeds))
    total = sum(variance for _, variance in variances)
    if total == 0.0:
        return value, means
    drawn_alike = sum(variance * (count - 1) / count for count, variance in variances)
    freedom = total**2 / sum(variance**2 / (count - 1) for count, variance in variances)
    spread = np.sqrt(total / drawn_alike * freedom / rng.chisquare(freedom, draws))
    return value, value + (means - value) * spread


def _check_paired(evaluations: Sequence[Evaluation]) -> None:
    first = evaluations[0]
    for other in evaluations[1:]:
        differing = [name for name in _PAIRED if getattr(first, name) != getattr(other, name)]
        if other.documents != first.documents or not np.array_equal(
            other.document_tokens, first.document_tokens
        ):
            differing.append("documents")
        if differing:
            raise InputError(
                f"{first.model} and {other.model} were evaluated on different windows "
                f"({first.corpus} {first.split} and {other.corpus} {other.split}; different: "
                f"{', '.join(differing)}); evaluate both on the same"
            )
