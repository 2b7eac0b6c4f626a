"""Which files of a model on the Hub are not in the local cache, when the Hub cannot be reached.

The cache notes of a file that the Hub was asked for that there is none, so what is neither there
nor noted is what could not be fetched.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# what tokenizers are read from where there is no tokenizer.json
_VOCABULARIES = (
    *("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model"),
    *("merges.txt", "tekken.json", "tiktoken.model", "qwen.tiktoken"),
)


def lacking_config(repository: str, revision: str | None, trusted: bool) -> list[str]:
    """Of the configuration, and of the code that it names where that may run."""
    if unknown(repository, CONFIG, revision):
        return [CONFIG]
    return _code_of(repository, CONFIG, revision) if trusted else []


def lacking_weights(repository: str, revision: str | None) -> list[str]:
    """Of the safetensors files."""
    shards = _object(repository, SAFE_WEIGHTS_INDEX_NAME, revision).get("weight_map")
    if isinstance(shards, dict):
        named = sorted({name for name in shards.values() if isinstance(name, str)})
        return [name for name in named if unknown(repository, name, revision)]
    return [SAFE_WEIGHTS_NAME] if unknown(repository, SAFE_WEIGHTS_NAME, revision) else []


def lacking_tokenizer(repository: str, revision: str | None, trusted: bool) -> list[str]:
    """Of the tokenizer, and of the code that it names where that may run."""
    names = _code_of(repository, TOKENIZER_CONFIG, revision) if trusted else []
    if unknown(repository, TOKENIZER, revision):
        names.append(TOKENIZER)
        vocabularies = [name for name in _VOCABULARIES if cached(repository, name, revision)]
        if vocabularies == ["vocab.json"] and unknown(repository, "merges.txt", revision):
            names.append("merges.txt")
    return names


def cached(repository: str, name: str, revision: str | None) -> Path | None:
    """A file of a repository in the local cache; None where it is not. Nothing is fetched."""
    path = _look(repository, name, revision)
    return Path(path) if isinstance(path, str) and path else None


def unknown(repository: str, name: str, revision: str | None) -> bool:
    """Whether a file is not in the cache, and the Hub has not said that there is none."""
    return _look(repository, name, revision) is None


def _look(repository: str, name: str, revision: str | None) -> Any:
    try:
        # a text where it is there, an object of the library's where there is none, else None
        return try_to_load_from_cache(repository, name, revision=revision)
    except ValueError:
        # no name of a repository, so the Hub has no file of it
        return ""


def _code_of(repository: str, name: str, revision: str | None) -> list[str]:
    """Python files that a configuration names as its own code (`auto_map`), not in the cache."""
    named: Any = _object(repository, name, revision).get("auto_map")
    values: Sequence[Any] = list(named.values()) if isinstance(named, dict) else []
    references = [
        each
        for value in values
        for each in (value if isinstance(value, list) else [value])
        if isinstance(each, str)
    ]
    lacking = set()
    for reference in references:
        # OTHER/REPOSITORY--module.Class, or module.Class of this one
        elsewhere, dashes, place = reference.rpartition("--")
        file = f"{place.rpartition('.')[0]}.py"
        if dashes and unknown(elsewhere, file, None):
            lacking.add(f"{file} of {elsewhere}")
        elif not dashes and unknown(repository, file, revision):
            lacking.add(file)
    return sorted(lacking)


def _object(repository: str, name: str, revision: str | None) -> dict[str, Any]:
    path = cached(repository, name, revision)
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    # what is wrong with it is said where it is read
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
