from .choice import attending as attending
from .choice import choose_attention as choose_attention
from .fast_passes import fast_attention as fast_attention
