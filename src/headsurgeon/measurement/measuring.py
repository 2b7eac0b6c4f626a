"""Statistics of every head during ordinary forward passes; the model is left as it was."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import Layout, layout_of
from headsurgeon.arguments import checked
from headsurgeon.attention.row_statistics import RowStatistics
from headsurgeon.attention_kinds import AttentionChoice, AttentionRan
from headsurgeon.data import Texts, Windows, as_windows
from headsurgeon.errors import ModelError
from headsurgeon.head_stats import HeadStats, Provenance
from headsurgeon.heads import QUANTILE_LEVELS, STATISTICS
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.measured_attention import choose_measured, measuring
from headsurgeon.measurement.own_forward import OBSERVE, check_own_attention
from headsurgeon.measurement.unequal import of_texts
from headsurgeon.measurement.untrained_head import null_mass
from headsurgeon.models.forward import (
    OnWindows,
    batches,
    check_windows,
    evaluating,
    model_id,
    usual_defaults,
)
from headsurgeon.models.loaded_with import loaded_with
from headsurgeon.models.weights import ordinary, precision

SINK_ROW = 0.9


@checked
@usual_defaults()
def measure(
    model: PreTrainedModel,
    windows: Windows | Texts | Tensor,
    *,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> HeadStats:
    """Measures every head of `model` on `windows`.

    Only forward passes run, without gradients; parameters, hooks and training flags are afterwards
    what they were.

    A layer without attention has no heads: all its values are NaN (`HeadStats.attends`).

    In a layer with a sliding window, everything about position 0 (mass, sink rows, quantiles, null)
    is taken over the rows that can see it. Windows are whole: padding is refused.

    Args:
        windows: token windows of equal length; rows of a bare tensor [count, length] count as one
            document each. Or unequal texts (`headsurgeon.texts`), each counting once.
        batch_size: windows per forward pass; by default about 4,096 tokens.
        attention: `stock` runs the model's own forward and takes the statistics in blocks, exactly;
            `fast` takes both from one pass, in memory linear in the window (equal to 1e-4 in
            fp32, and in bf16 nearer to fp32 than the stock forward); `auto` takes `fast` where
            attention is nothing but causal with a bias on the keys, save where that would take the
            place of a model's own forward in 16 bit, which rounds otherwise.
        on_windows: told after each batch how many windows were read; see `OnWindows`.

    Returns:
        The statistics, one value per window and head; `provenance.attention` says `blocks` (the
        stock forward), `tiles` (one pass, in tiles of scores; on a CPU) or `kernel` (one pass of a
        kernel that has passed its self-check on this device).

    Raises:
        UnsupportedModel: no layout describes the model.
        SettingsError: tokens that are not [count, length], windows shorter than 2 tokens, or longer
            than the model can read; `fast` asked for where it is not available.
        ModelError: weights or activations that are not finite, or masks that the layout does not
            describe.
    """
    if isinstance(windows, Texts):
        return of_texts(
            windows,
            lambda part: measure(
                model, part, batch_size=batch_size, attention=attention, on_windows=on_windows
            ),
        )
    layout = layout_of(model)
    windows = as_windows(windows)
    tokens = windows.tokens
    check_windows(tokens, layout, model)
    count, length = tokens.shape
    shape = (count, layout.layers, layout.heads)
    values = {name: np.full(shape, np.nan) for name in STATISTICS}
    quantiles = np.full((*shape, len(QUANTILE_LEVELS)), np.nan)
    ran = choose_measured(model, layout, attention, length)
    observe = OBSERVE[layout.observed]
    check_own_attention(model, layout, tokens[:1])
    sinks: dict[int, Tensor] = {}
    done = 0

    with torch.no_grad(), evaluating(model), measuring(model, layout, ran, length) as rows_of:

        def on_layer(layer: int, capture: LayerCapture) -> None:
            batch = slice(done, done + len(capture.query))
            seen = min(layout.window(layer) or length, length)
            # the model may run under autocast; its statistics are fp32 all the same
            with torch.autocast(model.device.type, enabled=False):
                measured, spread = _window_values(capture, rows_of(layer, capture), seen)
            for name, value in measured.items():
                values[name][batch, layer] = value.cpu().double().numpy()
            quantiles[batch, layer] = spread.cpu().double().numpy()
            if capture.score_terms is not None and capture.score_terms.sinks is not None:
                sinks[layer] = capture.score_terms.sinks.detach()

        with observe(model, layout, on_layer):
            for batch in batches(tokens, batch_size, on_windows):
                model.base_model(input_ids=batch.to(model.device), use_cache=False)
                done += len(batch)

    _check_finite(values["first_token_mass"], layout, model)
    return HeadStats(
        values=values,
        row_quantiles=quantiles,
        documents=windows.documents,
        slopes=np.tile(np.array(layout.slopes, dtype=np.float64), (layout.layers, 1)),
        null_mass=null_mass(layout, length, sinks),
        provenance=_provenance(model, windows, ran),
    )


def _window_values(
    capture: LayerCapture, rows: RowStatistics, seen: int
) -> tuple[dict[str, Float[Tensor, "batch head"]], Float[Tensor, "batch head level"]]:
    """Means over the rows of each window, and the quantiles of the mass on position 0.

    Only the first `seen` rows can see position 0.
    """
    mass = rows.first_token[..., :seen]
    norms = _output_norms(capture)
    value_norms = capture.value.float().norm(dim=-1)
    levels = torch.tensor(QUANTILE_LEVELS, device=mass.device)
    means = {
        "first_token_mass": mass.mean(-1),
        "first_token_mass_after_row0": mass[..., 1:].mean(-1),
        "sink_rows": (mass > SINK_ROW).float().mean(-1),
        "entropy": rows.entropy.mean(-1),
        "mean_distance": rows.distance.mean(-1),
        "previous_token_mass": rows.previous[..., 1:].mean(-1),
        "local_mass": rows.local.mean(-1),
        "output_norm": norms / norms.mean(dim=1, keepdim=True),
        "first_value_norm": value_norms[..., 0] / value_norms[..., 1:].mean(-1),
    }
    return means, mass[..., 1:].quantile(levels, dim=-1).permute(1, 2, 0)


def _output_norms(capture: LayerCapture) -> Float[Tensor, "batch head"]:
    """Mean norm over rows of what each head adds to the residual stream.

    ‖W c‖² = cᵀ(WᵀW)c needs head_dim² products per row where projecting would need
    hidden·head_dim.
    """
    weight = capture.output_weight.float()
    gram = weight.transpose(-1, -2) @ weight
    context = capture.context.float()
    squared = ((context @ gram) * context).sum(-1)
    return squared.clamp(min=0.0).sqrt().mean(-1)


def _provenance(model: PreTrainedModel, windows: Windows, ran: AttentionRan) -> Provenance:
    return Provenance(
        model=model_id(model),
        corpus=windows.corpus,
        split=windows.split,
        length=windows.length,
        count=len(windows),
        first_token=windows.first_token,
        seed=windows.seed,
        corpus_hash=windows.corpus_hash,
        dtype=precision(model),
        attention=ran,
        family=str(model.config.model_type),
        packing=windows.packing,
        loaded_with=loaded_with(model),
    )


def _check_finite(
    mass: Float[np.ndarray, "window layer head"], layout: Layout, model: PreTrainedModel
) -> None:
    finite = np.isfinite(mass).all(axis=(0, 2))
    bad = [layer for layer in layout.attention_layers if not finite[layer]]
    if not bad:
        return
    present = {name: value for name, value in model.named_parameters() if not value.is_meta}
    broken: Sequence[str] = [
        name
        for name, value in present.items()
        if ordinary(value) and not bool(value.isfinite().all())
    ]
    cause = f"not finite: {', '.join(broken[:3])}" if broken else "all weights in memory are finite"
    raise ModelError(
        f"attention in layer {bad[0]} is NaN or infinite ({cause}); "
        "load a sound checkpoint, or a wider dtype if activations overflow"
    )
