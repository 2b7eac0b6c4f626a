"""Several models named in one command: whether all can be meant, and a folder name for each."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from headsurgeon.cli.options import Loading
from headsurgeon.errors import SettingsError


def check_models(models: Sequence[str], loading: Loading) -> None:
    """Refuses what would fail after hours of measuring: reads the configurations alone.

    Raises:
        SettingsError: a model named twice.
        ModelError, UnsupportedModel, NetworkError: as `headsurgeon.load` does.
    """
    # a folder has many spellings
    places = [os.path.realpath(model) if Path(model).exists() else model for model in models]
    twice = sorted({m for m, place in zip(models, places, strict=True) if places.count(place) > 1})
    if twice:
        raise SettingsError(f"{', '.join(twice)}: named more than once; name each model once")
    from headsurgeon.arch.registry import layout_for
    from headsurgeon.models.loading import load_config

    for model in models:
        layout_for(load_config(model, trust_remote_code=loading.trust_remote_code))


def folder_names(models: Sequence[str]) -> list[str]:
    """A folder name for each model, all different."""
    names: list[str] = []
    for model in models:
        stem = re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"
        taken = sum(name == stem or name.startswith(f"{stem}-again") for name in names)
        names.append(f"{stem}-again{taken}" if taken else stem)
    return names
