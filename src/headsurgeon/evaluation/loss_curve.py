"""Where along a run a loss was lowest, how sure that is, and from which step on it stays worse."""

from typing import Annotated

import numpy as np
from jaxtyping import Float
from pydantic import model_validator

from headsurgeon.bootstrap import DRAWS, mean_interval, resamples
from headsurgeon.records import Finite, Record
from headsurgeon.results import Array, Number
from headsurgeon.scores import Estimate


class DocumentLosses(Record):
    """The losses of single documents, which intervals are over.

    Attributes:
        tokens: predicted tokens of each document.
        loss: mean loss of each document at each moment, nats per token.
        untouched: the same in the untouched model.
    """

    tokens: Annotated[Float[np.ndarray, " document"], Array()]
    loss: Annotated[Float[np.ndarray, "moment document"], Array()]
    untouched: Annotated[Float[np.ndarray, " document"], Array()]

    @model_validator(mode="after")
    def _of_the_same(self) -> "DocumentLosses":
        if not self.tokens.shape == self.untouched.shape == self.loss.shape[1:]:
            raise ValueError("expected tokens, a loss and the untouched loss of each document")
        return self


class LossCurve(Record):
    """The loss on one text at every evaluation of a run.

    Attributes:
        name: `dev`, or the probe's.
        corpus, split: what it was measured on.
        untouched: loss of the untouched model, nats per token; NaN where it was not measured.
        loss: at each moment, nats per token.
        documents: the losses of single documents; None where they were not logged.
    """

    name: str
    corpus: str = ""
    split: str = ""
    untouched: Number
    loss: Annotated[Float[np.ndarray, " moment"], Array()]
    documents: DocumentLosses | None = None

    @model_validator(mode="after")
    def _of_one_run(self) -> "LossCurve":
        if self.documents is not None and len(self.documents.loss) != len(self.loss):
            raise ValueError(f"{self.name}: expected a loss of each document at each moment")
        if not np.isfinite(self.loss).all():
            raise ValueError(f"{self.name}: a loss is no finite number")
        return self

    @property
    def several(self) -> DocumentLosses | None:
        """The losses of documents where there are two at least, so that there are intervals."""
        documents = self.documents
        return documents if documents is not None and len(documents.tokens) > 1 else None

    def against_untouched(self, place: int) -> Estimate:
        """Loss at a moment minus the untouched model's, nats per token, paired over documents."""
        documents = self.several
        if documents is None:
            return Estimate(float(self.loss[place]) - self.untouched, np.nan, np.nan)
        return Estimate.of_mean(documents.loss[place] - documents.untouched, documents.tokens)


class Minimum(Record):
    """Where a loss is lowest.

    Attributes:
        step: the first step with the lowest loss of those evaluated.
        loss: there, nats per token.
        low, high: between which steps it lies in 95 % of the draws of other documents; NaN where
            documents were not logged, or there is one.
        share: of the draws, how many have it at this step, fraction.
        change: loss there minus that of the untouched model. It is of the text that the step was
            chosen on, so it flatters; the same on another text does not.
    """

    step: int
    loss: Finite
    low: Number
    high: Number
    share: Number
    change: Estimate


class Onset(Record):
    """From where on a run is worse than it was at its best.

    The rule: the first evaluated step after the minimum such that there, and at every later one,
    the 95 % interval of the loss minus that at the minimum (paired over documents) lies above 0.
    The minimum was chosen for being low on the same documents, so the rule says it a little early
    where evaluations are dense.

    Attributes:
        step: None where the run is not worse for good, or where nothing can be said.
        known: whether documents were logged, two at least, so that there are intervals.
        excess: loss at the last evaluation minus that at the minimum, nats per token.
    """

    step: int | None
    known: bool
    excess: Estimate


def minimum_of(
    curve: LossCurve, steps: tuple[int, ...], *, draws: int = DRAWS, seed: int = 0
) -> Minimum:
    """The minimum of a curve; its interval resamples documents and looks for it in each draw."""
    place = int(np.argmin(curve.loss))
    low = high = share = float("nan")
    documents = curve.several
    if documents is not None:
        drawn = resamples(len(documents.tokens), draws, np.random.default_rng(seed))
        places = np.argmin((drawn * documents.tokens) @ documents.loss.T, axis=1)
        minima = np.asarray(steps)[places]
        low, high = np.quantile(minima, (0.025, 0.975), method="inverted_cdf").tolist()
        share = float((places == place).mean())
    return Minimum(
        step=steps[place],
        loss=float(curve.loss[place]),
        low=low,
        high=high,
        share=share,
        change=curve.against_untouched(place),
    )


def onset_of(curve: LossCurve, steps: tuple[int, ...]) -> Onset:
    """From where on the loss is worse than at its minimum for good; see `Onset` for the rule."""
    place = int(np.argmin(curve.loss))
    documents = curve.several
    if documents is None:
        excess = float(curve.loss[-1] - curve.loss[place])
        return Onset(step=None, known=False, excess=Estimate(excess, np.nan, np.nan))
    over = documents.loss - documents.loss[place]
    mean, low, high = mean_interval(over.T, documents.tokens)
    worse = low > 0.0
    first = len(worse)
    while first - 1 > place and worse[first - 1]:
        first -= 1
    return Onset(
        step=steps[first] if first < len(worse) else None,
        known=True,
        excess=Estimate(float(mean[-1]), float(low[-1]), float(high[-1])),
    )
