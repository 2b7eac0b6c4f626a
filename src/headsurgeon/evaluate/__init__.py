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
from headsurgeon.evaluate.recovery import Recovery, empirical_null, recovery

__all__ = [
    "Ablation",
    "Drift",
    "Estimate",
    "Evaluation",
    "Recovery",
    "ablate",
    "ablation_cost",
    "difference",
    "drift",
    "empirical_null",
    "evaluate",
    "recovered_share",
    "recovery",
    "silenced",
]
