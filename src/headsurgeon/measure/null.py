"""What an untrained head would show: the mass on position 0 under the position bias alone."""

import numpy as np
import torch
from jaxtyping import Float

from headsurgeon.arch import Layout


def null_mass(layout: Layout, length: int) -> Float[np.ndarray, "layer head"]:
    """`first_token_mass` of a head whose scores are all zero, in closed form.

    p_t0 = exp(b_0) / Σ_{i ≤ t} exp(b_i), averaged over the rows t of one window, where b is the
    position bias; without one this is (1/T) Σ 1/t. The shallower the slope, the higher the null:
    a mass means little until it is compared with this.

    Args:
        length: window length T, tokens.
    """
    bias = layout.key_bias(length).double()
    rows = (bias[:, :1] - torch.logcumsumexp(bias, dim=-1)).exp()
    return np.tile(rows.mean(-1).numpy(), (layout.layers, 1))
