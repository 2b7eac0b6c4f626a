"""The tokenizer of a model: its own, or the one its repository keeps for all its checkpoints."""

import re
import warnings
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from headsurgeon.errors import HeadsurgeonWarning, ModelError
from headsurgeon.models.cached import TOKENIZER_CONFIG, lacking_tokenizer, unknown
from headsurgeon.models.checkpoints import STEP
from headsurgeon.models.reading import not_cached, reading
from headsurgeon.models.subfolders import holds_tokenizer

_MARK = re.compile(r"<[^<>]*>|\[[A-Z]+\]")


def open_tokenizer(spec: str, source: str, **options: Any) -> PreTrainedTokenizerBase:
    """Loads the tokenizer that lies in a folder or on the Hub.

    Args:
        spec: the model as it was named, for messages.
        source: a folder, or a Hub id.
        options: `revision` and `trust_remote_code` of `from_pretrained`.

    Warns:
        HeadsurgeonWarning: the checkpoint has none, and that of the folder above it is taken; or
            its configuration is on the Hub alone, which cannot be reached.

    Raises:
        ModelError: there is none, or it cannot be read.
        NetworkError: the Hub has it, and cannot be reached.
    """
    place = _with_tokenizer(Path(source)) if Path(source).is_dir() else None
    if place is not None and place != Path(source):
        warnings.warn(
            f"{spec} has no tokenizer of its own; the one beside its folder is used ({place})",
            category=HeadsurgeonWarning,
            stacklevel=4,
        )
    local = Path(source).is_dir()
    revision = options.get("revision")
    trusted = bool(options.get("trust_remote_code"))

    def lacking() -> list[str]:
        return [] if local else lacking_tokenizer(source, revision, trusted)

    try:
        with reading(spec, "its tokenizer (tokenizer.json, tokenizer_config.json, …)", lacking):
            loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                str(place or source), **options
            )
        has_vocabulary = _has_vocabulary(loaded)
    except ModelError:
        if place is not None or not local:
            raise
        has_vocabulary = False
    if not has_vocabulary and (names := lacking()):
        raise not_cached(spec, names)
    if not local and unknown(source, TOKENIZER_CONFIG, revision):
        warnings.warn(
            f"{spec}: {TOKENIZER_CONFIG} is not in the local cache, and the Hugging Face Hub "
            "cannot be asked for it, so tokens that this tokenizer adds by itself may be missing",
            category=HeadsurgeonWarning,
            stacklevel=4,
        )
    if not has_vocabulary:
        raise ModelError(
            f"{spec}: found no tokenizer beside the weights; save one there, or name a model to "
            "take it from: tokenizer= in Python, --tokenizer on the command line"
        )
    return loaded


def _has_vocabulary(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether there are tokens beside special ones: some classes are content with no file at all.

    Which have `<unk>`, `<s>` and the like then, whether or not they are called special.
    """
    return any(_MARK.fullmatch(token) is None for token in tokenizer.get_vocab())


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
