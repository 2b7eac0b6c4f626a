"""Statistics of attention heads during a forward pass; nothing is ever changed."""

from headsurgeon.measure.measure import measure
from headsurgeon.measure.null import null_mass

__all__ = ["measure", "null_mass"]
