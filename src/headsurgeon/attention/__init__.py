"""Ways to run attention, and to take statistics of its rows, without holding attention maps.

`attention_kinds.py`, one folder up, has the words for what is asked for and what ran.

Statistics of the rows (`row_statistics.py` says which), by three ways with one result:

- `blocked_statistics.py`: in blocks of queries; exact for any mask, and the reference;
- `tiled_statistics.py`: in tiles that fit a processor's cache (`tiled_scores.py`), heads shared out
  over threads (`head_threads.py`);
- `kernel_statistics.py`: by one call of a fused kernel (`private_operators.py`).

Attention itself, with a bias on the keys, forward and backward:

- `tiled_attention.py`: in such tiles;
- `kernel_attention.py`: by PyTorch's fused kernel, the bias as features (`folded_bias.py`);
- `biased_attention.py`: by whichever of the two is faster.

A whole model: `choice.py` decides, `fast_passes.py` switches it over for a while, with the
forwards in `fast_modules.py`, for the families in `fast_families.py`; `split_heads.py` finds the
heads among a projection's features.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
