"""What an untrained head would show: the mass on position 0 under the position bias alone."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.arch import Layout


def null_mass(
    layout: Layout, length: int, sinks: Mapping[int, Tensor] | None = None
) -> Float[np.ndarray, "layer head"]:
    """`first_token_mass` of a head whose scores are all zero, in closed form.

    p_t0 = exp(b_0) / Σ_{i ≤ t} exp(b_i), averaged over the rows t of one window, where b is the
    position bias; without one this is (1/T) Σ 1/t. The shallower the slope, the higher the null:
    a mass means little until it is compared with this. With a sliding window the average is over
    the rows that can see position 0, as in `first_token_mass`; a learned sink s adds exp(s) to the
    sum. In a layer without attention it is NaN.

    Args:
        length: window length T, tokens.
        sinks: the learned sinks of each layer [head], where the family has them; they belong to the
            model and stay as they are when a head is operated on.
    """
    bias = layout.key_bias(length).cpu().double()
    total = torch.logcumsumexp(bias, dim=-1)
    null = np.full((layout.layers, layout.heads), np.nan)
    for layer in layout.attention_layers:
        seen = min(layout.window(layer) or length, length)
        with_sink = total
        if sinks:
            with_sink = torch.logaddexp(total, sinks[layer].cpu().double()[:, None])
        null[layer] = (bias[:, :1] - with_sink).exp()[:, :seen].mean(-1).numpy()
    return null
