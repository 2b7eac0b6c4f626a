"""What the MLP of each layer is worth: the loss that zeroing its output costs, with an interval."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.arguments import checked
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data import Texts, Windows
from headsurgeon.errors import SettingsError, UnsupportedModel
from headsurgeon.evaluation.document_loss import evaluate
from headsurgeon.evaluation.lower_layers import LowerLayers
from headsurgeon.models.forward import OnWindows, usual_defaults
from headsurgeon.records import Record
from headsurgeon.results import Number, Result
from headsurgeon.scores import Estimate, Evaluation, difference


class LayerCost(Record):
    """What zeroing the MLP of some layers costs.

    Attributes:
        layers: which, ascending.
        nll: the loss without them, nats per predicted token.
        cost: that minus the loss with them, paired over documents; positive: they do work.
    """

    layers: tuple[int, ...]
    nll: Number
    cost: Estimate


class LayerAblation(Result):
    """The costs of all layers, each by itself, and of groups of layers.

    Attributes:
        baseline: the model as it is.
        singles: one per layer.
        groups: layers that were zeroed together; their cost is not the sum of the single ones.
    """

    kind: ClassVar[str] = "layer_ablation"

    baseline: Evaluation
    singles: tuple[LayerCost, ...]
    groups: tuple[LayerCost, ...]


@checked
@usual_defaults()
def ablate_layers(
    model: PreTrainedModel,
    windows: Windows | Texts | Tensor,
    *,
    groups: Sequence[Sequence[int]] | None = None,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> LayerAblation:
    """Measures what zeroing the MLP output of each layer, and of groups of layers, costs.

    Only what the MLP adds to the residual stream becomes zero, its bias included; attention and the
    stream itself stay. (The paper's code zeroes what BLOOM's MLP module returns, into which the
    stream was added already, and so erases all that the layers below computed.) A layer that costs
    nothing may still be made up for by others, and zero is not what a trained model ever sees
    there.

    Args:
        windows: what the loss is measured on, as for `evaluate`.
        groups: layers to be zeroed together; by default `quarters`, as in the paper's code.
        batch_size, attention: as for `evaluate`.
        on_windows: as for `evaluate`. The windows are read once as the model is, and once for each
            layer and each group.

    Raises:
        SettingsError: a group without layers, or with one that the model does not have.
        UnsupportedModel: the family has no dense MLP (mixture of experts).
    """
    layout = layout_of(model)
    if layout.mlp_down is None:
        raise UnsupportedModel(
            f"{layout.family!r} has no dense MLP, whose output could be zeroed; only heads can be "
            "ablated here"
        )
    given = quarters(layout.layers) if groups is None else groups
    together = [_checked(group, layout) for group in given]
    score = partial(
        evaluate,
        model,
        windows,
        batch_size=batch_size,
        attention=attention,
        on_windows=on_windows,
    )
    baseline = score()
    lower_layers = LowerLayers(model, layout)

    def without(layers: tuple[int, ...]) -> LayerCost:
        with lower_layers.below(layers[0]), _zeroed(model, layout, layers):
            ablated = score()
        return LayerCost(layers=layers, nll=ablated.nll, cost=difference(ablated, baseline))

    # in the order of their lowest layers, so that what lies below is computed once
    singles: list[LayerCost] = []
    costs: dict[tuple[int, ...], LayerCost] = {}
    for layer in range(layout.layers):
        singles.append(without((layer,)))
        costs |= {group: without(group) for group in together if group[0] == layer}
    return LayerAblation(
        baseline=baseline,
        singles=tuple(singles),
        groups=tuple(costs[group] for group in dict.fromkeys(together)),
    )


def quarters(layers: int) -> list[range]:
    """The layers in four groups of neighbours, as equal as can be; halves, where four are too many.

    Args:
        layers: how many there are; of fewer than four there is no group, since each is by itself
            already.
    """
    parts = 4 if layers >= 8 else 2 if layers >= 4 else 0
    edges = [round(layers * part / max(parts, 1)) for part in range(parts + 1)]
    return [range(start, end) for start, end in pairwise(edges)]


def _checked(group: Sequence[int], layout: Layout) -> tuple[int, ...]:
    numbers = tuple(sorted(set(group)))
    if not numbers or numbers[0] < 0 or numbers[-1] >= layout.layers:
        raise SettingsError(
            f"expected groups of layers from 0 to {layout.layers - 1}, got {list(group)}"
        )
    return numbers


@contextmanager
def _zeroed(model: nn.Module, layout: Layout, layers: Sequence[int]) -> Iterator[None]:
    """While open, the last projection of these layers' MLPs puts out zeros."""
    modules = [model.get_submodule(str(layout.mlp_down).format(layer=layer)) for layer in layers]
    handles = [
        module.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        for module in modules
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
