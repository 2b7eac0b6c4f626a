"""Which attention a measurement runs: the model's own, or one that yields statistics as well."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.attention import FUSED_FAMILIES, fused_attention, fused_available
from headsurgeon.attention.blocked import blocked_rows
from headsurgeon.attention.choice import in_16_bit
from headsurgeon.attention.fold import fold_bias, folded_attention
from headsurgeon.attention.fused import fused_rows
from headsurgeon.attention.rows import RowStatistics
from headsurgeon.attention.tiled import tiled_rows
from headsurgeon.attention.tiles import TILED_DEVICES
from headsurgeon.errors import SettingsError
from headsurgeon.measurement.capture import LayerCapture

Attention = Literal["auto", "fused", "stock"]
# What results record: statistics in blocks during the model's own forward, or attention and
# statistics in one pass, by tiles or by a fused kernel. A family observed at its attention
# interface always runs its own forward, and layers of it that are more than a bias on the keys are
# taken in blocks on every path.
Path = Literal["blocked", "tiled", "fused"]
Rows = Callable[[int, LayerCapture], RowStatistics]
OnePass = Callable[..., tuple[RowStatistics, Tensor | None]]
ONE_PASS: dict[Path, OnePass] = {"tiled": tiled_rows, "fused": fused_rows}


def choose_path(model: PreTrainedModel, layout: Layout, attention: str, length: int) -> Path:
    """The path that `attention` stands for on this model, device and window length.

    Raises:
        SettingsError: an unknown choice, or `fused` where it is not to be had.
    """
    if attention not in get_args(Attention):
        known = ", ".join(get_args(Attention))
        raise SettingsError(f"expected attention to be one of {known}, got {attention!r}")
    if attention == "stock":
        return "blocked"
    if not any(_one_pass_is_exact(layout, layer, length) for layer in layout.attention_layers):
        if attention == "auto":
            return "blocked"
        raise SettingsError(
            f"no fused attention for {layout.family!r}: none of its layers is plain causal "
            "attention; use attention='stock' or 'auto'"
        )
    if attention == "auto" and layout.observed == "projections" and in_16_bit(model):
        # the one pass takes the place of the model's own forward, which rounds otherwise
        return "blocked"
    # tiles also serve where no kernel has a log-sum-exp, or none that passes its self-check
    kernel = model.device.type not in TILED_DEVICES and fused_available(model.device)
    return "fused" if kernel else "tiled"


def _one_pass_is_exact(layout: Layout, layer: int, length: int) -> bool:
    """Whether that layer is nothing but causal attention with a bias on the keys."""
    if layout.observed == "projections":
        return layout.family in FUSED_FAMILIES
    window = layout.window(layer)
    return layout.softcap is None and not layout.learned_sinks and (window or length) >= length


@contextmanager
def measuring(model: PreTrainedModel, layout: Layout, path: Path, length: int) -> Iterator[Rows]:
    """While open, forward passes run on that path; yields what gives a layer's row statistics."""
    bias = layout.key_bias(length, model.device)
    if layout.observed == "interface":
        yield _interface_rows(layout, path, bias)
        return
    if path == "blocked":
        yield lambda layer, capture: blocked_rows(
            capture.query,
            capture.key,
            bias,
            layout.scale,
            held_in=capture.query.dtype if layout.rounds_scores else torch.float32,
        )
        return
    found: dict[int, RowStatistics] = {}
    attend = _listening(layout, ONE_PASS[path], bias, found)
    with fused_attention(model, attend):
        yield lambda layer, capture: found.pop(layer)


def _interface_rows(layout: Layout, path: Path, bias: Float[Tensor, "head row"]) -> Rows:
    """Row statistics from what the model handed to attention."""
    length = bias.shape[-1]

    def rows_of(layer: int, capture: LayerCapture) -> RowStatistics:
        terms = capture.terms
        assert terms is not None, "captured at the interface"
        if path != "blocked" and _one_pass_is_exact(layout, layer, length):
            rows, _ = ONE_PASS[path](capture.query, capture.key, bias, terms.scale)
            return rows
        return blocked_rows(
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
    found: dict[int, RowStatistics],
) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
    """Attention that leaves its row statistics in `found`."""

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # where the model runs in fp32, one pass serves the forward and the statistics
        averaged = value if query.dtype == torch.float32 else None
        with torch.autocast(query.device.type, enabled=False):
            found[layer], context = one_pass(query, key, bias, layout.scale, averaged)
        if context is not None:
            return context
        folded = fold_bias(bias, layout.scale, query.dtype)
        return folded_attention(query, key, value, folded, layout.scale)

    return attend
