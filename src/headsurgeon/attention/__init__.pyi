from .fused import fused_available as fused_available
from .swap import FUSED_FAMILIES as FUSED_FAMILIES
from .swap import fused_attention as fused_attention
