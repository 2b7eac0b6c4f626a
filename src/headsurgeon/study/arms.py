"""Arms that a study can name: the paper's method, and the controls and rivals it is held against.

An arm is a few fields of `headsurgeon.study.spec.Arm`; what is not named here has the default
there, which is the paper's method. To add one, add an entry; what it needs that does not exist yet
is a start (`headsurgeon.operation`), an optimiser or a term of the loss (`headsurgeon.training`).
"""

from collections.abc import Mapping
from typing import Any

_KEPT = {"init": "none", "output_start": "keep_output"}
_CANONICAL = {"init": "canonical", "calibration": 32}

READY: Mapping[str, Mapping[str, Any]] = {
    "untouched": {"method": "none", "about": "the model as it is"},
    "twin": {"method": "none", "model": "twin", "about": "the healthy twin as it is"},
    "paper": {"about": "reinitialised, output zeroed, slices trained (arXiv:2603.09616)"},
    "recommended": {
        **_CANONICAL,
        "about": "the start `canonical`; with an anchor where other text counts (docs/findings.md)",
    },
    "untrained": {"trained": False, "about": "reinitialised and zeroed, not trained"},
    "gradient_only": {**_KEPT, "about": "the same slices trained, nothing reinitialised"},
    "ceiling": {**_KEPT, "model": "twin", "about": "the twin, its same slices trained alike"},
    "ablate_zero": {"method": "ablate", "about": "the heads' output removed: pruning"},
    "ablate_mean": {
        "method": "ablate",
        "ablation_mode": "mean",
        "about": "the heads' output replaced by its average: pruning with a bias",
    },
    "qkv_only": {"output_start": "keep_output", "about": "stock output projection kept"},
    "random_output": {"output_start": "random_output", "about": "a small random output"},
    "ablate_sick": {
        "method": "ablate",
        "heads": "sick",
        "about": "the output of every sick head removed, planned or not",
    },
    "carry": {
        "output_start": "carry",
        "calibration": 32,
        "about": "the head's mean output kept as a bias",
    },
    "qk_only": {
        "init": "qk_only",
        "output_start": "keep_output",
        "about": "queries and keys reinitialised, values and output kept",
    },
    "vo_only": {"init": "vo_only", "about": "values reinitialised, output zeroed, Q and K kept"},
    "partial_reset": {"init": "partial_reset", "about": "half the old weights, half noise"},
    "unpin": {
        "init": "unpin",
        "output_start": "keep_output",
        "calibration": 32,
        "about": "keys projected off the first token's direction, nothing erased",
    },
    "gradient_matched": {
        "init": "gradient_matched",
        "calibration": 32,
        "about": "values for which the output's first gradient is largest",
    },
    "induction": {"init": "induction", "calibration": 32, "about": "Q and K look for repetitions"},
    "induction_gradient_matched": {
        "init": "induction_gradient_matched",
        "calibration": 32,
        "about": "both of these starts",
    },
    "canonical": {
        **_CANONICAL,
        "about": "both, Q and K in the directions in which repetitions are clearest",
    },
    "muon": {"train": {"optimizer": "muon"}, "about": "the paper's start, torch.optim.Muon"},
    "rates": {"train": {"output_rate": 8.0}, "about": "output columns at 8 times the rate"},
    "balance": {
        **_KEPT,
        "train": {"balance": 0.01},
        "about": "a sink-aware loss, nothing reinitialised (after arXiv:2602.01203)",
    },
    "reinit_balance": {"train": {"balance": 0.01}, "about": "the paper's start, sink-aware loss"},
    "anchor": {"train": {"anchor": 1.0}, "about": "held to the untouched model on other text"},
    "matched_healthy": {"heads": "matched", "about": "healthy heads of the same slopes instead"},
    "random_heads": {"heads": "random", "about": "as many heads drawn at random instead"},
    "column": {"heads": "column", "about": "sick and healthy heads of the band (the paper's H5)"},
    "lora": {"method": "lora", "about": "low-rank adapters, as many trainable parameters"},
    "full": {"method": "full", "about": "the whole model trained"},
    "paper_then_full": {
        "method": "then_full",
        "about": "the paper's start, the whole model trained",
    },
    "canonical_then_full": {
        **_CANONICAL,
        "method": "then_full",
        "about": "the start `canonical`, the whole model trained",
    },
    "bf16_masters": {"train": {"masters": "bf16"}, "about": "weights and moments in bf16"},
}


def resolved(entry: Any) -> Any:
    """An entry of a study's list of arms, with what it takes over from a ready arm.

    A name alone is that ready arm; a mapping whose `like` (or own name) is one changes it, its
    `train` field by field. What is no arm at all is handed back for the model to refuse.
    """
    if isinstance(entry, str):
        if entry not in READY:
            known = ", ".join(READY)
            raise ValueError(f"no ready arm {entry!r}; there are {known}; give fields for another")
        return {"name": entry, **READY[entry]}
    if not isinstance(entry, Mapping):
        return entry
    like = entry.get("like") or entry.get("name")
    if entry.get("like") and like not in READY:
        raise ValueError(f"like: no ready arm {like!r}; there are {', '.join(READY)}")
    ready = READY.get(like, {}) if isinstance(like, str) else {}
    changed = {**ready, **entry}
    train = entry.get("train", {})
    if isinstance(train, Mapping):
        changed["train"] = {**ready.get("train", {}), **train}
    return changed
