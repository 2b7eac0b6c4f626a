"""A diagnosis as tools for KV caches read it: which heads need the whole past, and which do not.

A head that spends its attention on the first token and on the nearest ones loses nothing when all
between is dropped from its cache (streaming heads: Xiao et al. 2024, arXiv:2410.10819); one that
looks elsewhere does. What is measured is the share of attention that such a cache would lose. It
is no proof of retrieval: a head that spreads over everything, as an untrained one does, loses as
much. The score is therefore the safe side: what scores low can be cut, what scores high was not
shown to matter.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Shaped

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.errors import SettingsError

Role = Literal["sink", "streaming", "retrieval_like"]
ROLES: tuple[Role, ...] = get_args(Role)
# share of attention elsewhere from which on a head is taken to need its whole past
LIMIT = 0.5


def elsewhere(diagnosis: Diagnosis) -> Float[np.ndarray, "layer head"]:
    """Share of attention on neither the first token nor the query's own and the two before it.

    The first three rows, where the first token is also among the nearest, count it twice: the
    share may come out too low by at most 3/length. 0 to 1; NaN in layers without attention.
    """
    stats = diagnosis.stats
    near = stats.first_token_mass + stats.local_mass
    return np.asarray(np.clip(1.0 - near, 0.0, 1.0))


def roles(diagnosis: Diagnosis, limit: float = LIMIT) -> Shaped[np.ndarray, "layer head"]:
    """`sink` where the head is sick, else `streaming` up to the limit, `retrieval_like` above.

    Empty in layers without attention.

    Raises:
        SettingsError: a limit that is no fraction.
    """
    if not 0.0 < limit < 1.0:
        raise SettingsError(f"limit: expected a fraction above 0 and below 1, got {limit}")
    share = elsewhere(diagnosis)
    named = np.where(share > limit, "retrieval_like", "streaming").astype(object)
    named[diagnosis.is_sick] = "sink"
    named[np.isnan(share)] = ""
    return named


def per_key_value_head(
    scores: Float[np.ndarray, "layer head"], key_value_heads: int
) -> Float[np.ndarray, "layer key_value_head"]:
    """The highest score of the query heads that share a key/value head, since one cache serves all.

    Raises:
        SettingsError: the number does not divide that of the heads.
    """
    layers, heads = scores.shape
    if key_value_heads < 1 or heads % key_value_heads:
        raise SettingsError(
            f"--key-value-heads: expected a number that divides {heads}, got {key_value_heads}"
        )
    return np.asarray(scores.reshape(layers, key_value_heads, -1).max(axis=-1))


def as_scores(scores: Float[np.ndarray, "window layer head"]) -> dict[str, list[float]]:
    """`{"layer-head": [scores]}`, the form of Wu et al. 2024 (arXiv:2404.15574) and HeadKV."""
    _, layers, heads = scores.shape
    return {
        f"{layer}-{head}": [round(float(value), 6) for value in scores[:, layer, head]]
        for layer in range(layers)
        for head in range(heads)
        if np.isfinite(scores[:, layer, head]).all()
    }


def as_gates(scores: Float[np.ndarray, "layer key_value_head"]) -> str:
    """Tab-separated numbers from 0 to 1, a line for each layer, the form of DuoAttention.

    Raises:
        SettingsError: a layer without attention, for which that form has no line.
    """
    if np.isnan(scores).any():
        raise SettingsError(
            "the model has layers without attention, for which DuoAttention's table has no form; "
            "choose --format json"
        )
    return "".join("\t".join(f"{value:.6f}" for value in row) + "\n" for row in scores)


def per_document(diagnosis: Diagnosis) -> Float[np.ndarray, "document layer head"]:
    """`elsewhere` of each document."""
    stats = diagnosis.stats
    near = stats.per_document("first_token_mass") + stats.per_document("local_mass")
    return np.asarray(np.clip(1.0 - near, 0.0, 1.0))


def counted(named: Shaped[np.ndarray, "layer head"], of: Sequence[Role] = ROLES) -> dict[str, int]:
    """How many heads have each role."""
    return {role: int((named == role).sum()) for role in of}
