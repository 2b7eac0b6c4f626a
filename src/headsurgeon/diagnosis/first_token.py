"""Position or token: does a sick head look at position 0 whatever stands there?

A sink that stays when the first token is another one, and when the first token is dropped so that
the next one stands at position 0, belongs to the position. One that goes belongs to the token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from headsurgeon.diagnosis.diagnosis import heads_where
from headsurgeon.diagnosis.verdicts import PROFILES, Thresholds, classify
from headsurgeon.errors import SettingsError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import SICK, HeadId

Follows = Literal["position", "token", "mixed"]


@dataclass(frozen=True, eq=False)
class FirstTokenTest:
    """The mass of the sick heads with other first tokens and with none.

    Attributes:
        heads: the heads that are sick with the windows as they are.
        original: their mass with the windows as they are, fraction.
        alternatives: the token ids put at position 0 instead.
        replaced: their mass with each alternative, fraction.
        dropped: their mass without the first token, in windows shorter by one, fraction.
        null_mass: what an untrained head at that slope would show, fraction.
        follows: `position` when the head stays sick in every variant, `token` when it is in none,
            else `mixed`.
    """

    heads: tuple[HeadId, ...]
    original: Float[np.ndarray, " sick"]
    alternatives: tuple[int, ...]
    replaced: Float[np.ndarray, "alternative sick"]
    dropped: Float[np.ndarray, " sick"]
    null_mass: Float[np.ndarray, " sick"]
    follows: tuple[Follows, ...]

    def to_dict(self) -> dict[str, Any]:
        """One entry per sick head, by name, for JSON."""
        return {
            str(head): {
                "follows": self.follows[index],
                "original": float(self.original[index]),
                "replaced": self.replaced[:, index].tolist(),
                "dropped": float(self.dropped[index]),
                "null_mass": float(self.null_mass[index]),
            }
            for index, head in enumerate(self.heads)
        }


def first_token_test(
    measure_tokens: Callable[[Tensor], HeadStats],
    tokens: Int[Tensor, "count length"],
    alternatives: Sequence[int],
    thresholds: Thresholds = PROFILES["paper"],
) -> FirstTokenTest:
    """Measures the windows as they are, with each other first token, and without the first token.

    Args:
        measure_tokens: measures windows of tokens, such as `partial(measure, model)`.
        tokens: the windows; at least 3 tokens long.
        alternatives: token ids to put at position 0, at least one; see `common_tokens`.
        thresholds: what counts as sick.

    Returns:
        Masses and what they follow, for the sick heads.

    Raises:
        SettingsError: the windows are too short, or there is no alternative.
    """
    if tokens.shape[1] < 3:
        raise SettingsError(
            f"windows of {tokens.shape[1]} tokens cannot lose their first one; use 3 or more"
        )
    if not alternatives:
        raise SettingsError("alternatives: expected at least one token id, got none")
    base = measure_tokens(tokens)
    verdicts = classify(base.first_token_mass, base.entropy, thresholds, base.attends)
    sick = np.isin(verdicts, sorted(SICK))
    replaced = np.stack(
        [measure_tokens(_replaced(tokens, token)).first_token_mass[sick] for token in alternatives]
    )
    dropped = measure_tokens(tokens[:, 1:]).first_token_mass[sick]
    stays = np.concatenate([replaced, dropped[None]]) > thresholds.sink
    return FirstTokenTest(
        heads=heads_where(sick),
        original=base.first_token_mass[sick],
        alternatives=tuple(int(token) for token in alternatives),
        replaced=replaced,
        dropped=dropped,
        null_mass=base.null_mass[sick],
        follows=tuple(_follows(column) for column in stays.T),
    )


def common_tokens(tokens: Int[Tensor, "count length"], count: int = 2) -> tuple[int, ...]:
    """The most frequent token ids of the windows that never stand at position 0, for alternatives.

    Args:
        tokens: the windows.
        count: how many; fewer are returned when the windows have fewer.
    """
    ids, frequency = torch.unique(tokens[:, 1:], return_counts=True)
    other = ~torch.isin(ids, tokens[:, 0])
    order = torch.argsort(frequency[other], descending=True, stable=True)
    return tuple(int(token) for token in ids[other][order][:count])


def _replaced(tokens: Int[Tensor, "count length"], token: int) -> Int[Tensor, "count length"]:
    changed = tokens.clone()
    changed[:, 0] = token
    return changed


def _follows(stays: np.ndarray) -> Follows:
    if stays.all():
        return "position"
    return "mixed" if stays.any() else "token"
