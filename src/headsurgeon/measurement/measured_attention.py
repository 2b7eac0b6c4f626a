"""The attention that runs while heads are measured, and the row statistics it yields."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.attention.blocked_statistics import blocked_statistics
from headsurgeon.attention.choice import in_16_bit
from headsurgeon.attention.fast_families import FAST_FAMILIES
from headsurgeon.attention.fast_passes import fast_attention
from headsurgeon.attention.folded_bias import fold_bias
from headsurgeon.attention.kernel_attention import kernel_attention
from headsurgeon.attention.kernel_statistics import kernel_available, kernel_statistics
from headsurgeon.attention.row_statistics import RowStatistics
from headsurgeon.attention.tiled_scores import TILED_DEVICES
from headsurgeon.attention.tiled_statistics import tiled_statistics
from headsurgeon.attention_kinds import AttentionRan, check_choice
from headsurgeon.errors import SettingsError
from headsurgeon.measurement.layer_capture import LayerCapture

Rows = Callable[[int, LayerCapture], RowStatistics]
OnePass = Callable[..., tuple[RowStatistics, Tensor | None]]
# attention and statistics together; layers that are more than a bias on the keys are taken in
# blocks whatever ran in the others
ONE_PASS: dict[AttentionRan, OnePass] = {"tiles": tiled_statistics, "kernel": kernel_statistics}


def choose_measured(
    model: PreTrainedModel, layout: Layout, attention: str, length: int
) -> AttentionRan:
    """What runs on this model, device and window length when `attention` is asked for.

    A family observed at its attention interface always runs its own forward; `fast` is then about
    the statistics alone.

    Returns:
        `blocks`, `tiles` or `kernel`.

    Raises:
        SettingsError: an unknown choice, or `fast` where it is not to be had.
    """
    check_choice(attention)
    if attention == "stock":
        return "blocks"
    reason = None
    if not any(_one_pass_is_exact(layout, layer, length) for layer in layout.attention_layers):
        reason = f"no layer of {layout.family!r} is plain causal attention"
    elif layout.observed == "projections" and model.config.output_attentions:
        reason = "the model's configuration asks for attention maps (output_attentions)"
    if reason is not None and attention == "fast":
        raise SettingsError(f"no fast attention: {reason}; ask for attention 'stock' or 'auto'")
    # the one pass takes the place of such a model's own forward, which rounds otherwise
    rounds = attention == "auto" and layout.observed == "projections" and in_16_bit(model)
    if reason is not None or rounds:
        return "blocks"
    # tiles also serve where no kernel has a log-sum-exp, or none that passes its self-check
    kernel = model.device.type not in TILED_DEVICES and kernel_available(model.device)
    return "kernel" if kernel else "tiles"


def _one_pass_is_exact(layout: Layout, layer: int, length: int) -> bool:
    """Whether that layer is nothing but causal attention with a bias on the keys."""
    if layout.observed == "projections":
        return layout.family in FAST_FAMILIES
    window = layout.window(layer)
    return layout.softcap is None and not layout.learned_sinks and (window or length) >= length


@contextmanager
def measuring(
    model: PreTrainedModel, layout: Layout, ran: AttentionRan, length: int
) -> Iterator[Rows]:
    """While open, forward passes run that attention; yields what gives a layer's row statistics."""
    bias = layout.key_bias(length, model.device)
    if layout.observed == "interface":
        yield _interface_rows(layout, ran, bias)
        return
    if ran == "blocks":
        yield lambda layer, capture: blocked_statistics(
            capture.query,
            capture.key,
            bias,
            layout.scale,
            held_in=capture.query.dtype if layout.rounds_scores else torch.float32,
        )
        return
    statistics: dict[int, RowStatistics] = {}
    attend = _listening(layout, ONE_PASS[ran], bias, statistics)
    with fast_attention(model, attend):
        yield lambda layer, capture: statistics.pop(layer)


def _interface_rows(layout: Layout, ran: AttentionRan, bias: Float[Tensor, "head row"]) -> Rows:
    """Row statistics from what the model handed to attention."""
    length = bias.shape[-1]

    def rows_of(layer: int, capture: LayerCapture) -> RowStatistics:
        terms = capture.score_terms
        assert terms is not None, "captured at the interface"
        if ran != "blocks" and _one_pass_is_exact(layout, layer, length):
            rows, _ = ONE_PASS[ran](capture.query, capture.key, bias, terms.scale)
            return rows
        return blocked_statistics(
            capture.query,
            capture.key,
            bias,
            terms.scale,
            mask=terms.mask,
            softcap=terms.softcap,
            sinks=terms.sinks,
        )

    return rows_of


def _listening(
    layout: Layout,
    one_pass: OnePass,
    bias: Float[Tensor, "head row"],
    statistics: dict[int, RowStatistics],
) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
    """Attention that leaves its row statistics in `statistics`."""

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # where the model runs in fp32, one pass serves the forward and the statistics
        averaged = value if query.dtype == torch.float32 else None
        with torch.autocast(query.device.type, enabled=False):
            statistics[layer], context = one_pass(query, key, bias, layout.scale, averaged)
        if context is not None:
            return context
        folded = fold_bias(bias, layout.scale, query.dtype)
        return kernel_attention(query, key, value, folded, layout.scale)

    return attend
