"""Where each head lives: `layout.py` says what a layout is, one file per family, `registry.py`."""

from headsurgeon.arch.layout import Block, Layout, Projection
from headsurgeon.arch.registry import FAMILIES, layout_for, layout_of

__all__ = ["FAMILIES", "Block", "Layout", "Projection", "layout_for", "layout_of"]
