"""What a cell's result is made of: losses, heads, recovery, and how it was trained. No torch."""

from typing import Any

import numpy as np
from pydantic import Field, model_validator

from headsurgeon.attention_kinds import AttentionRan
from headsurgeon.records import Record
from headsurgeon.results import Number
from headsurgeon.scores import Evaluation


class Scored(Record):
    """Losses of one model on the test windows of one text, summed over each document.

    Attributes:
        corpus, split, length, stride, corpus_hash, count, first_token, windows_seed: the windows.
        attention: which attention ran.
        documents: ids.
        tokens: predicted tokens of each document.
        nll: its negative log-likelihood, nats.
        ablated: the same with the planned heads ablated, by mode (`zero`, `mean`).
    """

    corpus: str
    split: str
    length: int
    stride: int
    corpus_hash: str
    count: int
    first_token: str
    windows_seed: int
    attention: AttentionRan
    documents: tuple[str, ...]
    tokens: tuple[float, ...]
    nll: tuple[Number, ...]
    ablated: dict[str, tuple[Number, ...]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_loss_per_document(self) -> "Scored":
        lengths = {len(self.tokens), len(self.nll), *map(len, self.ablated.values())}
        if lengths != {len(self.documents)} or not all(0 < count < 1e15 for count in self.tokens):
            raise ValueError("expected a number of tokens, and losses, for every document")
        return self

    @classmethod
    def of(cls, evaluation: Evaluation, ablated: dict[str, Evaluation]) -> "Scored":
        """An evaluation, and those of the same windows with heads ablated."""
        return cls(
            corpus=evaluation.corpus,
            split=evaluation.split,
            length=evaluation.length,
            stride=evaluation.stride,
            corpus_hash=evaluation.corpus_hash,
            count=evaluation.count,
            first_token=evaluation.first_token,
            windows_seed=evaluation.seed,
            attention=evaluation.attention,
            documents=evaluation.documents,
            tokens=tuple(evaluation.document_tokens.tolist()),
            nll=tuple(evaluation.document_nll.tolist()),
            ablated={mode: tuple(e.document_nll.tolist()) for mode, e in ablated.items()},
        )

    def without_heads(self, mode: str) -> "Scored":
        """The model without its heads as a model of its own, of which none can be ablated."""
        less = self.ablated[mode]
        return self.replace(nll=less, ablated={"zero": less})

    def evaluation(self, model: str, ablated: str | None = None) -> Evaluation:
        """As an evaluation of `model`; with `ablated` that of the mode."""
        return Evaluation(
            model=model,
            corpus=self.corpus,
            split=self.split,
            length=self.length,
            stride=self.stride,
            corpus_hash=self.corpus_hash,
            count=self.count,
            first_token=self.first_token,
            seed=self.windows_seed,
            documents=self.documents,
            document_nll=np.array(self.nll if ablated is None else self.ablated[ablated]),
            document_tokens=np.array(self.tokens),
            attention=self.attention,
        )


class HeadTable(Record):
    """Statistics of every head on one text, [layer][head]; None where there is no attention."""

    first_token_mass: tuple[tuple[float | None, ...], ...]
    entropy: tuple[tuple[float | None, ...], ...]
    mean_distance: tuple[tuple[float | None, ...], ...]

    @model_validator(mode="after")
    def _one_value_per_head(self) -> "HeadTable":
        tables = (self.first_token_mass, self.entropy, self.mean_distance)
        shapes = {(len(table), *set(map(len, table))) for table in tables}
        # the number of layers, and one number of heads
        if len(shapes) != 1 or len(shapes.pop()) != 2:
            raise ValueError("expected a value for every head, in rows of one length")
        return self

    def mass(self) -> np.ndarray:
        """The mass, float64 [layer, head]."""
        return np.array(self.first_token_mass, dtype=np.float64)


class Recovered(Record):
    """What the recovery rule says of a cell, see `headsurgeon.Recovery`.

    Attributes:
        heads: the operated heads.
        left_sick: of those sick before, which are sick on no text now.
        unlike_null: which differ from the same heads reinitialised and not trained, on every text.
        functional: whether ablating the set costs more than before, on every text.
        recovered: the heads for which all of it holds.
        null_mass: by text, mean mass of the untrained heads, fraction.
    """

    heads: tuple[str, ...]
    left_sick: tuple[str, ...]
    unlike_null: tuple[str, ...]
    functional: bool
    recovered: tuple[str, ...]
    null_mass: dict[str, float]


class Trained(Record):
    """How a cell was trained.

    Attributes:
        settings: the training settings, by name.
        learning_rate: the peak rate, chosen on dev text where the arm has a grid.
        parameters: trainable values.
        calibration_tokens: read by the start.
        curve: tokens read and dev loss at each evaluation.
        steps, tokens, anchor_tokens: of the whole run, see `headsurgeon.Run`.
        best_step, best_dev_loss: where it did best on dev text, nats per token.
        kept_step, kept_dev_loss: whose values are scored.
        snapshots: files in the run's folder.
        passes: how many there were; of several, steps and tokens are those of all together.
    """

    settings: dict[str, Any]
    learning_rate: float
    parameters: int
    calibration_tokens: int
    curve: tuple[tuple[int, float], ...]
    steps: int
    tokens: int
    anchor_tokens: int
    best_step: int
    best_dev_loss: float
    kept_step: int
    kept_dev_loss: float
    snapshots: tuple[str, ...]
    passes: int = 1
