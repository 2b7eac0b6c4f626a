"""What decides the result of a cell, or of the search for its arm's rate, as one hash."""

import json
from typing import Any

from headsurgeon.files import sha256_text
from headsurgeon.study.parts import Arm
from headsurgeon.study.results import Cell, Prepared
from headsurgeon.study.spec import Study


def key_of(study: Study, prepared: Prepared, cell: Cell, *, rates: bool = False) -> str:
    """SHA-256 of all that decides what a cell comes to.

    Args:
        rates: of the search for the learning rate of the cell's arm and text instead.
    """
    arm = study.arm(cell.arm)
    settings = study.settings(arm, cell.seed or 0) if arm.trains else None
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
        "settings": None if settings is None else settings.model_dump(mode="json"),
        "rate_seed": study.seeds[0] if arm.rates else None,
        "prepared": prepared.model_dump(mode="json"),
    }
    if arm.calibration:
        # it was dev text once
        content["calibrated_on"] = "train"
    return sha256_text([json.dumps(content, sort_keys=True, ensure_ascii=False)])


def _as_keyed(arm: Arm) -> dict[str, Any]:
    """The arm as it counts; a rule is spelled as it was when the first cells were keyed."""
    return {
        **arm.model_dump(mode="json", exclude={"about"}),
        "next_rule": arm.next_rule.replace("_", "-"),
    }
