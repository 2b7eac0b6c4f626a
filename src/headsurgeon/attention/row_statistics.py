"""What one pass over the attention rows yields, whichever way it was computed."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowStatistics:
    """Statistics of every attention row, O(T) numbers per head.

    Attributes:
        first_token: probability on position 0.
        entropy: Shannon entropy of the row, a learned sink included, nats.
        distance: mean of t − j, tokens.
        previous: probability on position t − 1; 0 in row 0, which has none.
        local: probability on positions t, t − 1 and t − 2, as far as they exist.
    """

    first_token: Float[Tensor, "batch head row"]
    entropy: Float[Tensor, "batch head row"]
    distance: Float[Tensor, "batch head row"]
    previous: Float[Tensor, "batch head row"]
    local: Float[Tensor, "batch head row"]
