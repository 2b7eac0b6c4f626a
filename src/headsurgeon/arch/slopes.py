"""ALiBi slopes: for a power of two of heads a geometric series, interleaved otherwise.

Source: Press et al. 2022, https://arxiv.org/abs/2108.12409. With H = 2^k heads m_h = 2^(−8(h+1)/H):
head 0 is the steepest (it sees only near tokens), the last head the shallowest. For other counts
the two families of checkpoints extend the series in different orders.
"""

import math


def geometric(heads: int, step: int = 1) -> list[float]:
    """m_h = 2^(−8(h+1)/heads) for every `step`-th h, steepest first."""
    return [2.0 ** (-8.0 * (h + 1) / heads) for h in range(0, heads, step)]


def appended(heads: int) -> tuple[float, ...]:
    """BLOOM and Falcon: the series of the power of two below, then every other one above."""
    below = 2 ** math.floor(math.log2(heads))
    return tuple(geometric(below) + geometric(2 * below, step=2)[: heads - below])


def interleaved(heads: int) -> tuple[float, ...]:
    """MPT: the series of the power of two above, odd places first, cut to `heads`."""
    above = 2 ** math.ceil(math.log2(heads))
    series = geometric(above)
    if above == heads:
        return tuple(series)
    return tuple((series[1::2] + series[::2])[:heads])
