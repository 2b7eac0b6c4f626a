from .costs import Cost as Cost
from .costs import Costs as Costs
from .costs import PlainCosts as PlainCosts
from .plan import AblationMode as AblationMode
from .plan import Plan as Plan
from .plan import PlannedHead as PlannedHead
from .plan import Role as Role
from .rules import RULES as RULES
