"""One head's whole attention map on one window: for looking, not for statistics of a corpus."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.attention.blocked_statistics import masked
from headsurgeon.errors import ModelError
from headsurgeon.heads import HeadId, check_heads, parse_heads
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.measuring import OBSERVE
from headsurgeon.models.forward import check_windows, evaluating, usual_defaults


@usual_defaults()
def attention_map(
    model: PreTrainedModel, tokens: Int[Tensor, " length"], head: HeadId | str
) -> Float[np.ndarray, "row key"]:
    """How much each token of one window looks at each earlier one, through one head.

    Memory is one [length, length] map, whatever the number of heads and layers.

    Args:
        tokens: ids of one window.
        head: the head, such as `L5H14`.

    Returns:
        Probabilities; a row is a query token and sums to 1. Where the family has a learned sink,
        the rest of the row's 1 lies in it.

    Raises:
        UnsupportedModel: no layout describes the model.
        HeadError: a head that the model does not have.
        SettingsError: a window shorter than 2 tokens, or longer than the model can read.
        CorpusError: token ids beyond the model's vocabulary, or padding.
        ModelError: attention that is not finite, or a mask that the layout does not describe.
    """
    [attention] = attention_maps(model, tokens, [head]).values()
    return attention


@usual_defaults()
def attention_maps(
    model: PreTrainedModel, tokens: Int[Tensor, " length"], heads: Sequence[HeadId | str]
) -> dict[HeadId, Float[np.ndarray, "row key"]]:
    """The same through several heads, of one forward pass, by head.

    The model's own forward runs once and is only listened to; scores and softmax are taken in fp32.

    Raises:
        Whatever `attention_map` raises.
    """
    layout = layout_of(model)
    wanted = parse_heads(heads)
    check_heads(wanted, layout.layers, layout.heads, layout.attention_layers)
    window = tokens[None]
    check_windows(window, layout, model)
    bias = layout.key_bias(window.shape[1], model.device)
    maps: dict[HeadId, Tensor] = {}

    def on_layer(layer: int, capture: LayerCapture) -> None:
        held_in = capture.query.dtype if layout.rounds_scores else torch.float32
        for head in wanted:
            if head.layer == layer:
                maps[head] = head_probabilities(
                    capture, 0, head.head, bias[head.head], layout.scale, held_in
                )

    observe = OBSERVE[layout.observed]
    with torch.no_grad(), evaluating(model), observe(model, layout, on_layer):
        model.base_model(input_ids=window.to(model.device), use_cache=False)
    for head, attention in maps.items():
        if not bool(attention.isfinite().all()):
            raise ModelError(
                f"attention of {head} is NaN or infinite; load a sound checkpoint, or a wider "
                "dtype if activations overflow"
            )
    return {head: maps[head].cpu().double().numpy() for head in wanted}


def head_probabilities(
    capture: LayerCapture,
    window: int,
    head: int,
    key_bias: Float[Tensor, " key"],
    scale: float,
    held_in: torch.dtype,
) -> Float[Tensor, "row key"]:
    """The map of one head in one window, fp32; terms in the order in which attention has them."""
    terms = capture.score_terms
    scores = capture.query[window, head].float() @ capture.key[window, head].float().T
    scores = scores * (scale if terms is None else terms.scale)
    if terms is not None and terms.softcap is not None:
        scores = terms.softcap * torch.tanh(scores / terms.softcap)
    scores = (scores + key_bias.to(held_in)).to(held_in).float()
    if terms is not None and terms.mask is not None:
        # one mask serves every window and every head unless there is one for each
        own = terms.mask[window if len(terms.mask) > 1 else 0]
        scores = masked(scores, own[head if len(own) > 1 else 0])
    later = torch.ones_like(scores, dtype=torch.bool).triu(1)
    scores = scores.masked_fill(later, -torch.inf)
    if terms is not None and terms.sinks is not None:
        sink = terms.sinks[head].float().expand(len(scores), 1)
        return torch.cat((scores, sink), dim=-1).softmax(-1)[:, :-1]
    return scores.softmax(-1)
