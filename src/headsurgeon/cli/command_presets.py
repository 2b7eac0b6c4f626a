"""Presets that are commands of ours, from `command_presets.yaml`: what they would type, and run."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from headsurgeon.errors import StudyError
from headsurgeon.yaml_lines import plain_yaml

# what is meant where no variant is named, as for studies
DEFAULT = "corrected"


@cache
def command_presets() -> Mapping[str, Any]:
    """All of them by name."""
    text = files("headsurgeon.cli").joinpath("command_presets.yaml").read_text(encoding="utf-8")
    presets = plain_yaml(text)
    assert isinstance(presets, dict)
    return presets


def commands_of(
    name: str, variant: str | None, output: Path, model: str | None = None
) -> list[list[str]]:
    """The commands of a preset, each as the words to be typed after `headsurgeon`.

    Args:
        name: of the preset.
        variant: one of its variants; None is `corrected`.
        output: folder; of several commands each has one of its own in it.
        model: in place of all models that the preset names.

    Raises:
        StudyError: no such variant.
    """
    preset = command_presets()[name]
    chosen = variant or DEFAULT
    if chosen not in preset["variants"]:
        known = ", ".join(preset["variants"])
        raise StudyError(f"preset {name}: no variant {chosen!r}; it has {known}")
    commands = []
    for folder, run in preset["runs"].items():
        options = {**run["options"], **preset["variants"][chosen]}
        if model is not None:
            options = {key: options[key] for key in options if key not in ("baseline", "tokenizer")}
        words = [run["command"], *([model] if model else run["models"])]
        for option, value in options.items():
            words += [f"--{option}", str(value)]
        commands.append([*words, "--output", str(output / folder)])
    return commands
