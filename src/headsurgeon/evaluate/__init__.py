"""Whether it mattered: loss, ablation, drift, and the rule for calling a head recovered."""

from headsurgeon.evaluate.ablation import Ablation, ablate, ablation_cost, silenced
from headsurgeon.evaluate.drift import Drift, drift
from headsurgeon.evaluate.perplexity import (
    Estimate,
    Evaluation,
    difference,
    evaluate,
    recovered_share,
)
from headsurgeon.evaluate.recovery import (
    Condition,
    Recovery,
    condition,
    empirical_null,
    recovery,
    recovery_from,
)

__all__ = [
    "Ablation",
    "Condition",
    "Drift",
    "Estimate",
    "Evaluation",
    "Recovery",
    "ablate",
    "ablation_cost",
    "condition",
    "difference",
    "drift",
    "empirical_null",
    "evaluate",
    "recovered_share",
    "recovery",
    "recovery_from",
    "silenced",
]
