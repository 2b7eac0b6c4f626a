"""What a page's head map shows of one model: statistics of every head, at one or many moments."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float

from headsurgeon.diagnosis.verdicts import PAPER, Thresholds
from headsurgeon.evaluation.attention_samples import AttentionSamples
from headsurgeon.heads import HeadId

UNTOUCHED = "untouched"


@dataclass(frozen=True)
class Moment:
    """When heads were measured.

    Attributes:
        label: such as `untouched` or `step 40`.
        step: optimiser steps taken, by which links name it; None for the untouched model.
        remark: what else is known of it, such as tokens and loss.
    """

    label: str
    step: int | None = None
    remark: str = ""


@dataclass(frozen=True, eq=False)
class HeadMoments:
    """Every head of one model, as long as it was looked at.

    Attributes:
        name: what the model is called in the choice of models.
        about: what it was measured on, in words.
        moments: ascending; where there are several, the first is the untouched model.
        values: statistics that change, by name: `mass` is always there.
        fixed: statistics that do not, or are known once, such as `slope` and `null`.
        thresholds: the limits of the verdicts.
        operated, watched: the heads of the plan.
        cannot_change: untouched heads that keep what they are and what they read.
        recovered: what the recovery rule says of heads, in words, by their name.
        samples: attention on one sample text, by when.
    """

    name: str
    about: str
    moments: tuple[Moment, ...]
    values: Mapping[str, Float[np.ndarray, "moment layer head"]]
    fixed: Mapping[str, Float[np.ndarray, "layer head"]] = field(default_factory=dict)
    thresholds: Thresholds = PAPER
    operated: tuple[HeadId, ...] = ()
    watched: tuple[HeadId, ...] = ()
    cannot_change: Bool[np.ndarray, "layer head"] | None = None
    recovered: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, AttentionSamples] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of layers and of heads per layer."""
        layers, heads = self.values["mass"].shape[1:]
        return layers, heads

    @property
    def size(self) -> int:
        """How many changing numbers there are."""
        return sum(values.size for values in self.values.values())

    def thinned(self, most: int) -> "HeadMoments":
        """The same at no more moments than that, at least two: first and last among them."""
        count = len(self.moments)
        if count <= max(most, 2):
            return self
        places = sorted({round(place) for place in np.linspace(0, count - 1, max(most, 2))})
        return replace(
            self,
            moments=tuple(self.moments[place] for place in places),
            values={name: values[places] for name, values in self.values.items()},
        )
