"""Ablation: zeroing the outputs of heads, or replacing them by their means, and what that costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.arguments import checked
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data import Texts, Windows, equal_parts
from headsurgeon.errors import SettingsError
from headsurgeon.evaluation.document_loss import evaluate
from headsurgeon.heads import HeadId, check_heads, parse_heads
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.projection_hooks import capturing
from headsurgeon.models.forward import OnWindows, batches, evaluating, usual_defaults
from headsurgeon.planning import AblationMode, Plan
from headsurgeon.records import HeadName
from headsurgeon.results import Result
from headsurgeon.scores import Estimate, Evaluation, difference


class Ablation(Result):
    """Loss that switching heads off costs, nats per token; positive means they do work.

    Attributes:
        mode: `zero` removes a head's output, `mean` replaces it by its average over all tokens.
        joint: cost of the whole set at once. It is not the sum of the single costs.
        singles: cost of each head alone; empty when not asked for.
        baseline: the model as it is.
        ablated: the model without the whole set.
    """

    kind: ClassVar[str] = "ablation"

    mode: AblationMode
    joint: Estimate
    singles: Mapping[HeadName, Estimate]
    baseline: Evaluation
    ablated: Evaluation


@checked
@usual_defaults()
def ablate(
    model: PreTrainedModel,
    heads: Plan | Sequence[str | HeadId],
    windows: Windows | Texts | Tensor,
    *,
    mode: AblationMode = "zero",
    singles: bool = True,
    baseline: Evaluation | None = None,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> Ablation:
    """Measures what ablating a set of heads, and each of them alone, costs.

    Args:
        heads: the heads, or a plan, of which the operated heads are taken.
        windows: what the loss is measured on; or bare token ids [count, length], or texts.
        mode: `zero` or `mean`; a sink that adds a constant costs much less under `mean`.
        singles: whether to ablate each head alone too, one evaluation per head.
        baseline: the model's loss on `windows` as it is, if it is known already.
        batch_size: windows per forward pass; by default about 4,096 tokens.
        attention: as for `evaluate`.
        on_windows: as for `evaluate`. The windows are read once with the whole set ablated, once
            for each of `singles`, and once more each for an unknown `baseline` and for the means.

    Raises:
        HeadError: a head the model does not have.
        SettingsError: no heads, an unknown mode, or tokens that are not [count, length].
    """
    layout = layout_of(model)
    head_ids = heads.operated if isinstance(heads, Plan) else parse_heads(heads)
    check_heads(head_ids, layout.layers, layout.heads, layout.attention_layers)
    if not head_ids or mode not in get_args(AblationMode):
        raise SettingsError(
            f"expected some heads and mode zero or mean, got {head_ids} and {mode!r}"
        )
    means = None
    if mode == "mean":
        means = mean_outputs(model, layout, windows, batch_size, on_windows)
    score = partial(
        evaluate,
        model,
        windows,
        batch_size=batch_size,
        attention=attention,
        on_windows=on_windows,
    )
    baseline = baseline or score()

    def without(group: Sequence[HeadId]) -> Evaluation:
        with ablating(model, layout, group, means):
            return score()

    ablated = without(head_ids)
    return Ablation(
        mode=mode,
        joint=difference(ablated, baseline),
        singles={head: difference(without([head]), baseline) for head in head_ids if singles},
        baseline=baseline,
        ablated=ablated,
    )


@contextmanager
def ablating(
    model: nn.Module,
    layout: Layout,
    heads: Sequence[HeadId],
    means: Float[Tensor, "layer head width"] | None = None,
) -> Iterator[None]:
    """While open, the heads' outputs are zero, or their `means`; weights are not touched."""
    handles = []
    try:
        for layer in sorted({head.layer for head in heads}):
            indices = [head.head for head in heads if head.layer == layer]
            module = model.get_submodule(layout.output.path(layer))
            hook = _overwrite(layout, indices, None if means is None else means[layer])
            handles.append(module.register_forward_pre_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _overwrite(
    layout: Layout, heads: Sequence[int], means: Float[Tensor, "head width"] | None
) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        context = inputs[0].clone()
        for head in heads:
            columns = context.narrow(-1, layout.output.starts[head], layout.head_dim)
            if means is None:
                columns.zero_()
            else:
                columns.copy_(means[head].to(columns.dtype).expand_as(columns))
        return (context, *inputs[1:])

    return hook


def mean_outputs(
    model: PreTrainedModel,
    layout: Layout,
    windows: Windows | Texts | Tensor,
    batch_size: int | None,
    on_windows: OnWindows | None = None,
) -> Float[Tensor, "layer head width"]:
    """Average of each head's output over all tokens of the windows, before the projection."""
    parts = equal_parts(windows)
    total = torch.zeros(
        layout.layers, layout.heads, layout.head_dim, dtype=torch.float64, device="cpu"
    )

    def on_layer(layer: int, capture: LayerCapture) -> None:
        total[layer] += capture.context.cpu().double().sum(dim=(0, 2))

    with torch.no_grad(), evaluating(model), capturing(model, layout, on_layer):
        for part in parts:
            for batch in batches(part.tokens, batch_size, on_windows):
                model.base_model(input_ids=batch.to(model.device), use_cache=False)
    return (total / sum(part.tokens.numel() for part in parts)).float().to(model.device)
