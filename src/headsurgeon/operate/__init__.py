"""Operating: slices in place of heads, how they start, merging, reverting, patch files."""

from headsurgeon.operate.init import INITS
from headsurgeon.operate.opening import operate
from headsurgeon.operate.output_start import OUTPUT_STARTS
from headsurgeon.operate.patch import apply_patch, read_patch
from headsurgeon.operate.patient import Change, Patient

__all__ = [
    "INITS",
    "OUTPUT_STARTS",
    "Change",
    "Patient",
    "apply_patch",
    "operate",
    "read_patch",
]
