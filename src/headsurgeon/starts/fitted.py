"""What Q, K and V become after a look at calibration windows: closed forms, nothing is trained."""

from collections.abc import Sequence
from math import sqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

from headsurgeon.starts.calibration import Calibration
from headsurgeon.starts.fresh import xavier_uniform_head
from headsurgeon.starts.head_tensors import HeadTensors, StartContext

# of the mean variance of what is inverted: directions that hardly occur stay small
_RIDGE = 1e-3
# directions in which an induction head compares tokens, if it is as wide
COMPARED = 16
# how far the score of a repeated token stands above that of any other
_MATCH = 6.0


def unpin(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Keys no longer see what tells the first position from the others; nothing else is erased.

    With u the direction from the mean input of the layer to that at position 0, W_K becomes
    W_K − W_K·u·uᵀ; where keys have a bias, it takes over what the mean of the others loses.
    """
    inputs = context.seen.layer_input(context.layer)
    first, others = inputs[:, 0].mean(dim=0), inputs[:, 1:].mean(dim=(0, 1))
    direction = (first - others) / (first - others).norm()
    for head in heads:
        if "key" in head.weights:
            weight = head.weights["key"]
            seen = weight.float() @ direction
            weight.sub_(torch.outer(seen, direction))
            if "key" in head.biases:
                head.biases["key"].add_(seen * (others @ direction))


def gradient_matched(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Q and K as in `xavier_uniform_head`; values for which the output's first gradient is largest.

    With x̃ the attention-weighted input of a head's values, g the gradient of the loss at the
    layer's attention output and C = E[x̃x̃ᵀ] + λI: of C^(−1/2)·E[x̃gᵀ] = U·S·Zᵀ the first head_dim
    columns of U give W_V = (C^(−1/2)·U_k)ᵀ, scaled to the energy of the layer's other heads. Heads
    come one after the other, each on what the earlier ones leave of g. After GradMax
    (arXiv:2201.05125) and LoRA-One (arXiv:2502.01235).
    """
    xavier_uniform_head(heads, context)
    match_values(heads, context)


def induction(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Queries for the present token, keys of the previous one; values as `xavier_uniform_head`.

    Tokens are compared in a few random directions of their whitened vectors, another set for each
    head: W_Q and W_K are ridge regressions of these on the layer's input, at the present and at the
    previous position, scaled so that a repeated token stands about 6 above the rest. How well that
    goes depends on what the layers below pass on of the previous token.
    """
    xavier_uniform_head(heads, context)
    _look_for_repetitions(heads, context)


def induction_gradient_matched(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Queries and keys as in `induction`, then values as in `gradient_matched`."""
    xavier_uniform_head(heads, context)
    _look_for_repetitions(heads, context)
    match_values(heads, context)


def match_values(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Values for which the output's first gradient is largest, with Q and K as they are."""
    seen = context.seen
    attended = seen.attended(context.layer)
    width = context.layout.head_dim
    energy = _energy_of_others(heads, context, seen)
    gradient = attended.gradient.flatten(0, 1)
    for head in heads:
        if "value" not in head.weights:
            continue
        read = attended.values_read(head.id.head).flatten(0, 1)
        whitening = inverse_root(read.T @ read / len(read))
        left, _, _ = torch.linalg.svd(whitening @ (read.T @ gradient / len(read)))
        weight = (whitening @ left[:, :width]).T
        values = read @ weight.T
        # in these directions the values have unit energy, up to the ridge
        gradient = gradient - values @ (values.T @ gradient / len(values))
        head.weights["value"].copy_(weight * sqrt(energy / width))


def _energy_of_others(
    heads: Sequence[HeadTensors], context: StartContext, seen: Calibration
) -> float:
    """Mean squared output of the layer's other heads; of all heads where there is no other."""
    started = {head.id.head for head in heads}
    others = [head for head in range(context.layout.heads) if head not in started]
    return float((seen.energy[context.layer, others] if others else seen.energy).mean())


def _look_for_repetitions(heads: Sequence[HeadTensors], context: StartContext) -> None:
    seen, layout = context.seen, context.layout
    inputs = seen.layer_input(context.layer)[:, 1:]
    vectors = seen.token_vectors()
    flat = vectors.flatten(0, 1)
    centred = vectors - flat.mean(dim=0)
    spread = centred.flatten(0, 1)
    whitened = centred @ inverse_root(spread.T @ spread / len(spread))
    repeated = repetitions(seen.tokens)
    for head in heads:
        drawn = torch.empty(layout.hidden, min(COMPARED, layout.head_dim))
        basis, _ = torch.linalg.qr(drawn.normal_(generator=context.noise))
        targets = whitened @ basis.to(whitened)
        query, query_bias = _regression(inputs, targets[:, 1:])
        key, key_bias = _regression(inputs, targets[:, :-1])
        scores = (inputs @ query.T + query_bias) @ (inputs @ key.T + key_bias).transpose(1, 2)
        size = sqrt(_MATCH / (gap(scores, repeated) * layout.scale))
        for part, weight, bias in (("query", query, query_bias), ("key", key, key_bias)):
            put(head, part, weight * size, bias * size)


def put(head: HeadTensors, part: str, weight: Tensor, bias: Tensor) -> None:
    """Writes the first rows of a part, the others become zero."""
    for blocks, values in ((head.weights, weight), (head.biases, bias)):
        for name, block in blocks.items():
            if name == part:
                block.zero_()
                block[: len(values)].copy_(values)


def repetitions(tokens: Int[Tensor, "window row"]) -> Tensor:
    """Whether the token before key j is the one at query t, for t and j from 1 on, j ≤ t."""
    same = tokens[:, 1:, None] == tokens[:, None, :-1]
    return same & torch.ones_like(same[0]).tril()


def gap(scores: Float[Tensor, "window row key"], repeated: Tensor) -> float:
    """How far scores of repetitions stand above the rest; at least a tenth of their deviation."""
    visible = torch.ones_like(scores[0], dtype=torch.bool).tril().expand_as(scores)
    rest = scores[visible & ~repeated]
    least = 0.1 * float(rest.std()) + 1e-9
    if not bool(repeated.any()):
        return least
    return max(least, float(scores[repeated].mean() - rest.mean()))


def _regression(
    inputs: Float[Tensor, "window row hidden"], targets: Float[Tensor, "window row width"]
) -> tuple[Float[Tensor, "width hidden"], Float[Tensor, " width"]]:
    """Weight and bias of the ridge regression of targets on inputs."""
    flat, target = inputs.flatten(0, 1), targets.flatten(0, 1)
    mean, centre = flat.mean(dim=0), target.mean(dim=0)
    centred = flat - mean
    covariance = centred.T @ centred / len(flat)
    ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(mean)).to(covariance)
    weight = torch.linalg.solve(covariance + ridge, centred.T @ (target - centre) / len(flat)).T
    return weight, centre - weight @ mean


def inverse_root(covariance: Float[Tensor, "hidden hidden"]) -> Float[Tensor, "hidden hidden"]:
    """(C + λI)^(−1/2), λ a thousandth of the mean variance."""
    values, vectors = torch.linalg.eigh(covariance)
    ridge = _RIDGE * values.clamp(min=0.0).mean() + 1e-12
    root: Tensor = (vectors * (values.clamp(min=0.0) + ridge).rsqrt()) @ vectors.T
    return root
