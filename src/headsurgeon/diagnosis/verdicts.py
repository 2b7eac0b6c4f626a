"""From mean mass and entropy to a verdict per head."""

from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Shaped
from pydantic import ConfigDict, model_validator

from headsurgeon.errors import InputError, ModelError, SettingsError
from headsurgeon.heads import NO_ATTENTION, HeadId
from headsurgeon.results import Result


class Thresholds(Result):
    """Where one verdict ends and the next begins; the defaults are those of the paper.

    Attributes:
        sink: a head with more mass than this on position 0 is sick, fraction.
        dead: a head with more mass than this is dead, fraction.
        low_entropy: a head that is not sick and has less entropy than this is low-entropy, nats.

    Raises:
        SettingsError: the limits are out of range or out of order.
    """

    model_config = ConfigDict(title="thresholds")
    kind: ClassVar[str] = "thresholds"
    error: ClassVar[type[InputError]] = SettingsError

    sink: float = 0.5
    dead: float = 0.95
    low_entropy: float = 0.5

    @model_validator(mode="after")
    def _in_order(self) -> "Thresholds":
        faults = []
        if not 0.0 <= self.sink <= self.dead <= 1.0:
            faults.append(f"expected 0 ≤ sink ≤ dead ≤ 1, got sink {self.sink}, dead {self.dead}")
        if not 0.0 <= self.low_entropy < np.inf:
            faults.append(f"low_entropy: expected finite nats from 0 up, got {self.low_entropy}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def is_sick(self, mass: Float[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
        """Whether heads with that mean mass are sick: sink or dead. The one definition of it."""
        return np.asarray(mass > self.sink)


PAPER = Thresholds()
PROFILES: dict[str, Thresholds] = {"paper": PAPER}


def classify(
    mass: Float[np.ndarray, "layer head"],
    entropy: Float[np.ndarray, "layer head"],
    thresholds: Thresholds = PROFILES["paper"],
    attends: Bool[np.ndarray, " layer"] | None = None,
) -> Shaped[np.ndarray, "layer head"]:
    """The verdict of every head.

    Limits belong to the milder side: a mass of exactly `sink` is healthy, of exactly `dead` a sink.
    The verdict looks at the means alone: it cannot tell a head that is always at 0.7 from one that
    is asleep on 70 % of the tokens (`sink_rows` can), nor whether a sink does work (ablation can).

    Args:
        mass: mean attention probability on position 0, fraction.
        entropy: mean entropy of the attention rows, nats.
        thresholds: the limits.
        attends: which layers have attention; by default all.

    Returns:
        An array of `Verdict` strings, and `NO_ATTENTION` in layers without heads.

    Raises:
        ModelError: a mass or an entropy is not a number, so the model's output was not either.
    """
    heads = np.ones(mass.shape, dtype=bool)
    if attends is not None:
        heads[~attends] = False
    unknown = np.argwhere(heads & ~(np.isfinite(mass) & np.isfinite(entropy)))
    if len(unknown):
        names = ", ".join(str(HeadId(int(layer), int(head))) for layer, head in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise ModelError(
            f"the statistics of {names}{more} are not finite numbers; check the model's weights "
            "for NaN or infinity, or measure in fp32"
        )
    return np.where(heads, verdicts_at(mass, entropy, thresholds), NO_ATTENTION)


def verdicts_at(
    mass: Float[np.ndarray, "layer head"],
    entropy: Float[np.ndarray, "layer head"],
    thresholds: Thresholds,
) -> Shaped[np.ndarray, "layer head"]:
    """As `classify`, for bounds of intervals, which may be NaN; a NaN crosses no limit."""
    cases = [mass > thresholds.dead, mass > thresholds.sink, entropy < thresholds.low_entropy]
    return np.select(cases, ["dead", "sink", "low-entropy"], default="healthy")


def verdicts_known(
    mass: Float[np.ndarray, "layer head"],
    entropy: Float[np.ndarray, "layer head"] | None,
    thresholds: Thresholds,
) -> Shaped[np.ndarray, "layer head"]:
    """As `classify`, of what a result kept: a mass of NaN is a layer without attention.

    Args:
        mass, entropy: as `classify`; without an entropy no head is called low-entropy.
        thresholds: the limits.
    """
    known = np.full(mass.shape, np.inf) if entropy is None else entropy
    return np.where(np.isnan(mass), NO_ATTENTION, verdicts_at(mass, known, thresholds))
