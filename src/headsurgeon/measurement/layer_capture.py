"""What one attention layer computed in a forward pass, as a measurement sees it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsurgeon.arch import Layout
from headsurgeon.models.weights import weight_of


@dataclass(frozen=True)
class ScoreTerms:
    """What else than queries and keys decides the scores of one layer.

    Attributes:
        scale: factor on query·key.
        mask: boolean or additive, [batch or 1, head or 1, row, key]; None means causal.
        softcap: limit of the scores, if any.
        sinks: score of each head's learned sink, if any.
    """

    scale: float
    mask: Tensor | None
    softcap: float | None
    sinks: Float[Tensor, " head"] | None


@dataclass(frozen=True)
class LayerCapture:
    """What one attention layer computed.

    Attributes:
        query, key, value: per query head; grouped keys and values are repeated for their heads.
        context: each head's output before the output projection.
        output_weight: each head's columns of the output projection.
        score_terms: the rest of the call, where the model was observed at the attention interface.
    """

    query: Float[Tensor, "batch head row width"]
    key: Float[Tensor, "batch head row width"]
    value: Float[Tensor, "batch head row width"]
    context: Float[Tensor, "batch head row width"]
    output_weight: Float[Tensor, "head hidden width"]
    score_terms: ScoreTerms | None = None


def output_weight(
    module: nn.Module, layout: Layout, dtype: torch.dtype
) -> Float[Tensor, "head hidden width"]:
    """Each head's columns of an output projection that is given inputs of `dtype`."""
    weight = weight_of(module, layout.output.axis == 0, dtype)
    return torch.stack([weight.narrow(1, start, layout.head_dim) for start in layout.output.starts])
