"""The tokenizer of a model: its own, or the one its repository keeps for all its checkpoints."""

import warnings
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from headsurgeon.errors import HeadsurgeonWarning, ModelError
from headsurgeon.models.checkpoints import STEP
from headsurgeon.models.reading import reading
from headsurgeon.models.subfolders import holds_tokenizer


def open_tokenizer(spec: str, source: str, **options: Any) -> PreTrainedTokenizerBase:
    """Loads the tokenizer that lies in a folder or on the Hub.

    Args:
        spec: the model as it was named, for messages.
        source: a folder, or a Hub id.
        options: `revision` and `trust_remote_code` of `from_pretrained`.

    Warns:
        HeadsurgeonWarning: the checkpoint has none, and that of the folder above it is taken.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    place = _with_tokenizer(Path(source)) if Path(source).is_dir() else None
    if place is not None and place != Path(source):
        warnings.warn(
            f"{spec} has no tokenizer of its own; the one beside its folder is used ({place})",
            category=HeadsurgeonWarning,
            stacklevel=4,
        )
    try:
        with reading(spec, "its tokenizer (tokenizer.json, tokenizer_config.json, …)"):
            loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                str(place or source), **options
            )
        # some classes are content with no vocabulary at all
        found = loaded.vocab_size > 0
    except ModelError:
        if place is not None or not Path(source).is_dir():
            raise
        found = False
    if not found:
        raise ModelError(
            f"{spec}: found no tokenizer beside the weights; save one there, or name a model to "
            "take it of: tokenizer= in Python, --tokenizer on the command line"
        )
    return loaded


def _with_tokenizer(folder: Path) -> Path | None:
    """The folder itself or, of what is a part of a larger whole, the nearest above it."""
    if holds_tokenizer(folder):
        return folder
    above: list[Path] = []
    if STEP.fullmatch(folder.name):
        above = [folder.parent]
    for parent in folder.parents:
        # .../snapshots/COMMIT/SUBFOLDER in the Hub's cache
        if parent.parent.name == "snapshots":
            above = list(folder.parents[: folder.parents.index(parent) + 1])
    return next((place for place in above if holds_tokenizer(place)), None)
