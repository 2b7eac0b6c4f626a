"""How well a model predicts text: token-weighted loss, kept per document so it can be compared."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.attention.choice import AttentionChoice, attending
from headsurgeon.bootstrap import DRAWS, Interval, mean_interval
from headsurgeon.data import Windows, as_windows
from headsurgeon.errors import InputError, ModelError
from headsurgeon.models.forward import batches, check_windows, evaluating, model_id, usual_defaults
from headsurgeon.models.loss import token_nll

# Share of bootstrap draws that may be without a gap before a share of that gap is undefined.
LOST_DRAWS = 0.005
# What two evaluations must have in common beyond their documents. Ids alone are not enough: two
# translations share them by intention, and another seed takes other windows of the same documents.
_PAIRED = ("split", "length", "corpus_hash", "count", "first_token", "seed")


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval over documents; NaN bounds for one document."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> "Estimate":
        """From an interval of a single number."""
        return cls(float(interval.mean), float(interval.low), float(interval.high))

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

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Loss of one model on one set of windows.

    Attributes:
        model: id of the model.
        corpus, split, length, corpus_hash, count, first_token, seed: what it was evaluated on;
            `count` is the number of windows, `seed` that of their selection.
        stride: new tokens per window, added first tokens left out; windows never overlap.
        documents: ids, in order of first appearance.
        document_nll: summed negative log-likelihood of each document, nats.
        document_tokens: predicted tokens of each document, length − 1 per window.
        attention: `stock` is the model's own; `fused` equals it up to rounding.
    """

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
    document_nll: Float[np.ndarray, " document"]
    document_tokens: Float[np.ndarray, " document"]
    attention: str = "stock"

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
        """exp(nll). The paper weights windows by T instead of T − 1 predicted tokens."""
        return math.exp(self.nll)

    def interval(self, seed: int = 0) -> Estimate:
        """The loss with its interval over documents."""
        return Estimate.of(mean_interval(self.document_mean, self.document_tokens, rng=seed))

    def to_dict(self) -> dict[str, Any]:
        """Figures and settings for JSON, the loss of each document included."""
        return {
            "model": self.model,
            "corpus": self.corpus,
            "split": self.split,
            "length": self.length,
            "stride": self.stride,
            "corpus_hash": self.corpus_hash,
            "count": self.count,
            "first_token": self.first_token,
            "seed": self.seed,
            "attention": self.attention,
            "documents": len(self.documents),
            "tokens": self.tokens,
            "nll": self.interval().to_dict(),
            "perplexity": self.perplexity,
            "per_document": [
                {"document": name, "nll": float(nll), "tokens": int(tokens)}
                for name, nll, tokens in zip(
                    self.documents, self.document_nll, self.document_tokens, strict=True
                )
            ],
        }


@usual_defaults()
def evaluate(
    model: PreTrainedModel,
    windows: Windows | Tensor,
    *,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
) -> Evaluation:
    """Scores every token of every window but its first.

    Args:
        windows: equal windows, or bare token ids [count, length]; each window starts without
            knowledge of the one before.
        batch_size: windows per forward pass; by default about 4,096 tokens.
        attention: `stock`, `fused`, or `auto`: the model's own forward in 16 bit, where ours rounds
            less than the model that will run; see `headsurgeon.attention.choice`.

    Raises:
        ModelError: a loss is not a finite number; names the window and its document.
        UnsupportedModel, SettingsError, CorpusError: as `measure`.
    """
    windows = as_windows(windows)
    check_windows(windows.tokens, layout_of(model), model)
    losses: list[float] = []
    with evaluating(model), attending(model, attention) as used:
        for batch in batches(windows.tokens, batch_size):
            losses += token_nll(model, batch.to(model.device)).cpu().double().sum(-1).tolist()
    _check_finite(losses, windows, model)
    names = list(dict.fromkeys(windows.documents))
    position = {name: index for index, name in enumerate(names)}
    nll = np.zeros(len(names))
    tokens = np.zeros(len(names))
    for name, loss in zip(windows.documents, losses, strict=True):
        nll[position[name]] += loss
        tokens[position[name]] += windows.length - 1
    return Evaluation(
        model=model_id(model),
        corpus=windows.corpus,
        split=windows.split,
        length=windows.length,
        stride=windows.length - windows.prefix,
        corpus_hash=windows.corpus_hash,
        count=len(windows),
        first_token=windows.first_token,
        seed=windows.seed,
        documents=tuple(names),
        document_nll=nll,
        document_tokens=tokens,
        attention=used,
    )


def _check_finite(losses: Sequence[float], windows: Windows, model: PreTrainedModel) -> None:
    """A sum with one such loss says nothing about the others, and no gate may take it for one."""
    bad = [index for index, loss in enumerate(losses) if not math.isfinite(loss)]
    if bad:
        raise ModelError(
            f"{model_id(model)}: the loss of {len(bad)} of {len(losses)} windows is not a finite "
            f"number ({losses[bad[0]]} in window {bad[0]}, {windows.documents[bad[0]]}); in 16 bit "
            "numbers may overflow: evaluate in fp32, or look for damaged weights"
        )


def difference(first: Evaluation, second: Evaluation, seed: int = 0) -> Estimate:
    """Loss of `first` minus loss of `second`, nats per token, paired over their documents.

    Raises:
        InputError: they were not evaluated on the same documents.
    """
    _check_paired((first, second))
    paired = first.document_mean - second.document_mean
    return Estimate.of(mean_interval(paired, first.document_tokens, rng=seed))


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
    return Estimate.of(mean_interval(ours - theirs, first[0].document_tokens, rng=seed))


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
    units = len(sick.documents)
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=draws)
    gaps = counts @ reachable
    real = gaps > 0.0
    if np.mean(~real) > LOST_DRAWS:
        return Estimate(math.nan, math.nan, math.nan)
    shares = (counts[real] @ gained) / gaps[real]
    low, high = np.quantile(shares, (0.025, 0.975))
    return Estimate(float(gained.sum() / reachable.sum()), float(low), float(high))


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
