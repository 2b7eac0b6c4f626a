"""What decides the result of a cell, or of the search for its arm's rate, as one hash."""

import json
from typing import Any

from headsurgeon.files import sha256_text
from headsurgeon.study.parts import Arm
from headsurgeon.study.results import Cell, Prepared
from headsurgeon.study.spec import Study
from headsurgeon.training.settings import TrainSettings

# settings that cells are older than: they count where they are in use, so that those stay known
_NEWER = ("heads_rate",)


def key_of(study: Study, prepared: Prepared, cell: Cell, *, rates: bool = False) -> str:
    """SHA-256 of all that decides what a cell comes to.

    Args:
        rates: of the search for the learning rate of the cell's arm and text instead.
    """
    arm = study.arm(cell.arm)
    content = {
        "what": "rates" if rates else "cell",
        "cell": list(cell),
        "arm": _as_keyed(arm),
        "texts": {text.name: text.model_dump(mode="json") for text in study.texts},
        "windows": study.windows.model_dump(mode="json"),
        "threads": study.threads,
        "dtype": study.dtype,
        "probes": study.model_dump(mode="json", include={"probes"}),
        "null_seeds": study.null_seeds,
        "settings": _settings(study, arm, cell) if arm.trains else None,
        "rate_seed": study.seeds[0] if arm.rates else None,
        "prepared": prepared.model_dump(mode="json"),
    }
    if arm.calibration:
        # it was dev text once
        content["calibrated_on"] = "train"
    return sha256_text([json.dumps(content, sort_keys=True, ensure_ascii=False)])


def _settings(study: Study, arm: Arm, cell: Cell) -> dict[str, Any]:
    """How the arm is trained."""
    held = study.settings(arm, cell.seed or 0).model_dump(mode="json")
    fields = TrainSettings.model_fields
    return {
        name: value
        for name, value in held.items()
        if name not in _NEWER or value != fields[name].default
    }


def _as_keyed(arm: Arm) -> dict[str, Any]:
    """The arm as it counts; a rule is spelled as it was when the first cells were keyed.

    With how many seeds it is run changes no cell.
    """
    return {
        **arm.model_dump(mode="json", exclude={"about", "seeds"}),
        "next_rule": arm.next_rule.replace("_", "-"),
    }
