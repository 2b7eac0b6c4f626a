"""Statistics → verdicts → plans."""

from headsurgeon.diagnose.band import SickBand, sick_band
from headsurgeon.diagnose.diagnosis import Diagnosis, diagnose
from headsurgeon.diagnose.dormancy import mlp_dormancy
from headsurgeon.diagnose.first_token import FirstTokenTest, common_tokens, first_token_test
from headsurgeon.diagnose.planning import plan
from headsurgeon.diagnose.rules import RULES, Cost
from headsurgeon.diagnose.verdicts import PROFILES, Thresholds, classify

__all__ = [
    "PROFILES",
    "RULES",
    "Cost",
    "Diagnosis",
    "FirstTokenTest",
    "SickBand",
    "Thresholds",
    "classify",
    "common_tokens",
    "diagnose",
    "first_token_test",
    "mlp_dormancy",
    "plan",
    "sick_band",
]
