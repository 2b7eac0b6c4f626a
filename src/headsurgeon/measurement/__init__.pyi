from .measuring import measure as measure
from .untrained_head import null_mass as null_mass
