"""Position or token: does a sick head look at position 0 whatever stands there?

A sink that stays when the first token is another one, and when the first token is dropped so that
the next one stands at position 0, belongs to the position. One that goes belongs to the token.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from headsurgeon.diagnosis.diagnosis import heads_where
from headsurgeon.diagnosis.verdicts import PROFILES, Thresholds, classify
from headsurgeon.errors import SettingsError
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import SICK
from headsurgeon.records import HeadName, Record
from headsurgeon.results import Number, Result

Follows = Literal["position", "token", "mixed"]


class TestedHead(Record):
    """One sick head with other first tokens and with none.

    Attributes:
        follows: `position` when the head stays sick in every variant, `token` when it is in none,
            else `mixed`.
        original: its mass with the windows as they are, fraction.
        replaced: its mass with each alternative, fraction.
        dropped: its mass without the first token, in windows shorter by one, fraction.
        null_mass: what an untrained head at that slope would show, fraction.
    """

    follows: Follows
    original: Number
    replaced: tuple[Number, ...]
    dropped: Number
    null_mass: Number


class FirstTokenTest(Result):
    """The mass of the sick heads with other first tokens and with none.

    Attributes:
        heads: what became of each head that is sick with the windows as they are.
        alternatives: the token ids put at position 0 instead; none in files of version 0.1, which
            do not name them.
    """

    kind: ClassVar[str] = "first_token_test"

    heads: Mapping[HeadName, TestedHead]
    alternatives: tuple[int, ...] = ()


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
    masses = zip(
        base.first_token_mass[sick], replaced.T, dropped, base.null_mass[sick], stays.T, strict=True
    )
    return FirstTokenTest(
        heads={
            head: TestedHead(
                follows=_follows(stays_sick),
                original=float(original),
                replaced=tuple(others.tolist()),
                dropped=float(without),
                null_mass=float(null),
            )
            for head, (original, others, without, null, stays_sick) in zip(
                heads_where(sick), masses, strict=True
            )
        },
        alternatives=tuple(int(token) for token in alternatives),
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
