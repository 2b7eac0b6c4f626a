"""MLP dormancy: the share of neurons whose weights are too small to matter."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch.layout import Layout
from headsurgeon.errors import ModelError
from headsurgeon.models.weights import weight_of


def mlp_dormancy(
    model: PreTrainedModel, layout: Layout, limit: float = 0.01
) -> Float[np.ndarray, " layer"]:
    """The share of neurons with ‖up row‖·‖down column‖ below `limit`, per layer.

    It tells whether layers with sick heads also have idle MLPs. It looks at weights alone: biases,
    gates and the inputs that really occur are left out, so a neuron above the limit may still never
    fire.
    Source: Schallon 2026, arXiv:2603.09616.

    Args:
        model: a causal language model.
        layout: its layout.
        limit: product of the two norms below which a neuron counts as dormant.

    Returns:
        Share per layer, fraction; NaN where the family has no dense MLP (mixture of experts).

    Raises:
        ModelError: an MLP weight is NaN or infinite.
    """
    return np.array([_share(model, layout, layer, limit) for layer in range(layout.layers)])


@torch.no_grad()
def _share(model: PreTrainedModel, layout: Layout, layer: int, limit: float) -> float:
    if layout.mlp_up is None or layout.mlp_down is None:
        return float("nan")
    up, down = layout.mlp_up.format(layer=layer), layout.mlp_down.format(layer=layer)
    transposed = layout.mlp_axis == 1
    columns = _weight(model, down, transposed).norm(dim=0)
    stacked = _weight(model, up, transposed)
    rows = stacked.narrow(0, layout.mlp_up_start, len(columns)).norm(dim=1)
    product = rows * columns
    if not bool(torch.isfinite(product).all()):
        raise ModelError(f"{up} or {down} holds NaN or infinite weights; load an undamaged model")
    return float((product < limit).cpu().double().mean())


def _weight(model: PreTrainedModel, path: str, transposed: bool) -> Float[Tensor, "out in"]:
    return weight_of(model.get_submodule(path), transposed, model.dtype).float()
