"""A quick look at a study: the same arms on a fixed fraction of the work, to see that all run.

What it finds is little to go by: runs are too short for most of what a study asks.
"""

from collections.abc import Mapping
from typing import Any

from headsurgeon.study.parts import Arm
from headsurgeon.study.spec import Study

# of training tokens, and of windows that are scored or that a start looks at
BUDGET = 8
WINDOWS = 4
# the spread of untrained heads needs two
NULL_SEEDS = 2
# steps of the whole run, which the short one may not reach
_STEPS = ("stop", "keep", "snapshots")


def quick(study: Study) -> Study:
    """The study with an eighth of the training, a quarter of the scored windows, and one seed.

    An arm that has a grid of learning rates takes its middle one. The plan is that of the whole
    study: as many windows are diagnosed and priced. The name says `-quick`.

    Raises:
        pydantic.ValidationError: a budget that is too small to be divided.
    """
    windows = study.windows
    test = max(2, windows.test // WINDOWS)
    changes = {
        "name": f"{study.name[:58]}-quick",
        "about": f"{study.about} A quick look: 1/{BUDGET} of the training tokens, 1/{WINDOWS} of "
        "the scored windows, one seed, rates not searched.".strip(),
        "windows": {
            **windows.model_dump(),
            "test": test,
            "statistics": min(test, max(2, windows.statistics // WINDOWS)),
        },
        "train": _shorter(study.train),
        "arms": tuple(_quick_arm(arm) for arm in study.arms),
        "seeds": study.seeds[:1],
        "null_seeds": NULL_SEEDS,
    }
    return Study.model_validate({**study.model_dump(), **changes})


def _quick_arm(arm: Arm) -> dict[str, Any]:
    train = _shorter(arm.train)
    if arm.rates:
        train["learning_rate"] = arm.rates[len(arm.rates) // 2]
    calibration = -(-arm.calibration // WINDOWS)
    changes = {"train": train, "rates": (), "seeds": None, "calibration": calibration}
    return {**arm.model_dump(), **changes}


def _shorter(train: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in train.items() if name not in _STEPS}
    if kept.get("max_tokens") is not None:
        kept["max_tokens"] = max(1, kept["max_tokens"] // BUDGET)
    if kept.get("epochs") is not None:
        kept["epochs"] = kept["epochs"] / BUDGET
    return kept
