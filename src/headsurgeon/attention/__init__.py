"""Ways to run attention.

"Fused" is what a user asks for: attention without maps, in tiles for fp32 on a CPU, by a kernel
elsewhere.

- `rows.py` says what a pass over the attention rows yields; `blocked.py` is the exact reference;
- `tiles.py` cuts scores to fit a processor's cache; `tiled.py` takes statistics from such tiles,
  `tiled_attention.py` is attention itself, forward and backward;
- `fold.py` turns a key bias into features, so that stock fused kernels compute ALiBi;
- `fused.py` gets the same statistics from such a kernel; `lse.py` adapts the private operators;
- `swap.py` runs a model's forward and backward passes that way; `split.py` finds the heads.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
