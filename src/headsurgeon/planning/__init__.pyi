from .planning import plan as plan
from .rules import RULES as RULES
from .rules import Cost as Cost
