"""Ways to run attention.

- `rows.py` says what a pass over the attention rows yields; `blocked.py` is the exact reference,
  `tiled.py` the fast way of a processor with caches;
- `fold.py` turns a key bias into features, so that stock fused kernels compute ALiBi;
- `fused.py` gets the same statistics from such a kernel; `lse.py` adapts the private operators;
- `swap.py` runs a model's forward and backward passes that way; `split.py` finds the heads.
"""

from headsurgeon.attention.fused import fused_available
from headsurgeon.attention.swap import FUSED_FAMILIES, fused_attention

__all__ = ["FUSED_FAMILIES", "fused_attention", "fused_available"]
