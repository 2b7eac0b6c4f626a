"""The command that does a run again, as far as there is one: a wrong one is worse than none."""

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from headsurgeon.training.settings import CALIBRATION

# what an option calls a precision
DTYPE_OPTIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def operate_options(
    identity: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[str, ...] | None:
    """Options of `headsurgeon operate`, quoted for a shell, with which it does what a run did.

    Besides these it is given the model, what that was loaded with, the plan of the run, and an
    output.

    Args:
        identity: what the run is.
        settings: those of its settings that are to be named.

    Returns:
        None where no command does the same: there are adapters, no start, one that had been
        trained, or texts that a command would not choose.
    """
    if "init" not in identity or "start_values" in identity:
        return None
    train, calibration = identity["train"], identity.get("calibration")
    # each text, and the split that a command takes of it
    chosen = [(train, "train"), (identity["dev"], "dev")]
    if calibration is not None:
        chosen.append((calibration, "train"))
        count = calibration["tokens"] / identity["settings"].get("length", 1)
        if calibration.get("corpus") != train["corpus"] or count != CALIBRATION:
            return None
    if identity.get("anchor") is not None:
        chosen.append((identity["anchor"], "train"))
    if any(not isinstance(text["corpus"], str) or text["split"] != split for text, split in chosen):
        return None
    return (*_texts(identity), *_settings(identity, settings))


def _texts(identity: Mapping[str, Any]) -> Iterator[str]:
    yield f"--corpus {quote(identity['train']['corpus'])}"
    if identity.get("trains") == "full":
        yield "--whole-model"
    # what is not said is the checkpoint's own on some machines, and fp32 on others
    if (dtype := DTYPE_OPTIONS.get(identity.get("dtype", ""))) is not None:
        yield f"--dtype {dtype}"
    if (anchor := identity.get("anchor")) is not None:
        yield f"--anchor-corpus {quote(anchor['corpus'])}"
    for name, text in identity.get("probes", {}).items():
        named = name if text["split"] == "dev" else f"{name}@{text['split']}"
        yield f"--probe {quote(named + '=' + text['corpus'])}"


def _settings(identity: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    looked_at = (identity.get("calibration") or {}).get("tokens", 0)
    for name, value in settings.items():
        if name == "max_tokens" and value is not None:
            # what the start looks at comes off the budget that the command is given
            value += looked_at
        option = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{option}" if value else f"--no-{option}"
        elif value not in (None, [], "", ()):
            said = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            yield f"--{option} {quote(said)}"
