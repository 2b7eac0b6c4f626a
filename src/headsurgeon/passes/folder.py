"""The folder of a sequence: `passes.json` says what it is; only the same may resume in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from headsurgeon.errors import InputError, OutputError
from headsurgeon.passes.result import PASSES, Passes
from headsurgeon.training.run_folder import differences, flat

UNTOUCHED = "diagnosis.json"
PLAN = "plan.yaml"
DIAGNOSIS = "diagnosis.json"
DRIFT = "drift.json"
RECOVERY = "recovery.json"


def folder_of(number: int) -> str:
    """The folder of a pass in that of its sequence."""
    return f"pass-{number}"


def open_sequence(folder: Path, model: str, identity: Mapping[str, Any], passes: int) -> Passes:
    """Begins a sequence in an empty folder, or resumes the same one; call it `locked`.

    More passes than were asked for before are the same sequence.

    Raises:
        OutputError: another sequence lies there, with more passes, or a damaged one.
        WriteError: it cannot be written.
    """
    path = folder / PASSES
    # as a file has it, so that lists and tuples are the same
    asked = to_jsonable_python(identity)
    if not path.exists():
        new = Passes(model=model, identity=asked)
        new.save(path)
        return new
    try:
        begun = Passes.load(path)
    except InputError as error:
        raise OutputError(f"{error}; or choose another folder") from error
    faults = differences(_comparable(begun.identity), _comparable(asked))
    if faults:
        raise OutputError(
            f"{folder} holds other passes; choose another folder, or the same settings and model:"
            "\n  " + "\n  ".join(faults)
        )
    if len(begun.passes) > passes:
        raise OutputError(
            f"{folder} holds {len(begun.passes)} passes, more than the {passes} asked for; choose "
            "another folder, or put on the first of its patches alone"
        )
    return begun


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Without nesting, and with the rule `newly_sick` spelled as it is now."""
    return flat(json.loads(json.dumps(identity, default=list).replace("newly-sick", "newly_sick")))
