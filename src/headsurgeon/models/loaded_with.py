"""What else than its name a model was read with, and how to say it again. No torch.

A model is found by its name; which tokenizer reads its text, and whether its own code may run, is
decided by whoever loads it. So results keep both, and commands and code that repeat them name them.
"""

from collections.abc import Mapping
from typing import Any

_NOTED = "_headsurgeon_loaded_with"


def note_loaded_with(model: object, tokenizer: str | None, trust_remote_code: bool) -> None:
    """Writes down, on the model, what `headsurgeon.load` was given."""
    noted: dict[str, Any] = {} if tokenizer is None else {"tokenizer": tokenizer}
    setattr(model, _NOTED, noted | ({"trust_remote_code": True} if trust_remote_code else {}))


def loaded_with(model: object) -> dict[str, Any]:
    """`tokenizer` and `trust_remote_code`, each where it was given to `headsurgeon.load`.

    Nothing is known of a model that was read or built in another way.
    """
    return dict(getattr(model, _NOTED, {}))


def as_options(given: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of a command line that say the same; every command that loads a model has them."""
    named = () if given.get("tokenizer") is None else ("--tokenizer", str(given["tokenizer"]))
    return (*named, "--trust-remote-code") if given.get("trust_remote_code") else named


def as_arguments(given: Mapping[str, Any]) -> str:
    """The same as further arguments of `headsurgeon.load`, each after a comma."""
    named = {} if given.get("tokenizer") is None else {"tokenizer": str(given["tokenizer"])}
    trusted = {"trust_remote_code": True} if given.get("trust_remote_code") else {}
    return "".join(f", {name}={value!r}" for name, value in {**named, **trusted}.items())
