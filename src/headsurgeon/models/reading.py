"""What the loaders of the libraries below raise, as one error that names the file and the cause."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from headsurgeon.errors import HeadsurgeonError, ModelError, NetworkError, causes_of
from headsurgeon.extras import command
from headsurgeon.models.cached import CONFIG

# read by transformers or tokenizers wherever they lie in a checkpoint folder
_JSON_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
)
# more than any model has, and few enough to be counted through: the most of each that is believed
_COUNTS = {
    "num_hidden_layers": 10**4,
    "n_layer": 10**4,
    "n_layers": 10**4,
    "num_layers": 10**4,
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "num_kv_heads": 2**16,
    "n_head": 2**16,
    "n_heads": 2**16,
    "num_local_experts": 2**16,
    "num_experts": 2**16,
    "head_dim": 2**20,
    "hidden_size": 2**24,
    "n_embd": 2**24,
    "d_model": 2**24,
    "intermediate_size": 2**28,
    "vocab_size": 2**31,
    "max_position_embeddings": 2**31,
    "n_positions": 2**31,
    "max_seq_len": 2**31,
    "seq_length": 2**31,
}
# these may be zero, which stands for "as usual" in some configurations
_MAY_BE_ZERO = {"num_local_experts", "num_experts", "num_kv_heads"}


@contextmanager
def reading(spec: str, what: str, lacking: Callable[[], Sequence[str]] = tuple) -> Iterator[None]:
    """Turns whatever a library raises while it reads `what` of `spec` into one of our errors.

    Args:
        lacking: of a Hub id, the files that are not in the local cache and would be read here.

    Raises:
        ModelError: it cannot be read; has the cause in words.
        NetworkError: a Hub id, and the Hub cannot be reached.
    """
    try:
        yield
    except HeadsurgeonError:
        raise
    # their loaders raise KeyError, AttributeError, StopIteration, RecursionError and bare
    # Exception on damaged files: what matters is that it was reading that failed
    except Exception as error:
        raise explained(spec, what, error, lacking) from error


def explained(
    spec: str, what: str, error: Exception, lacking: Callable[[], Sequence[str]] = tuple
) -> HeadsurgeonError:
    """The failure in one line: what was asked for, why it failed, what to do."""
    causes = causes_of(error)
    # asked in this order because huggingface_hub derives some of these from one another
    for cause in causes:
        if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
            return ModelError(f"{spec}: the Hub has no such model or revision; check the spelling")
    reason = " ".join(str(error).split())[:500]
    if "trust_remote_code" not in reason and (names := lacking()):
        return not_cached(spec, names)
    for cause in causes:
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError):
            return NetworkError(
                f"{spec}: not in the local cache, and the Hugging Face Hub cannot be reached; "
                "go online once, or give a local folder or a zoo: name"
            )
    if "trust_remote_code" in reason:
        return ModelError(
            f"{spec}: comes with code of its own, which is not run unless you trust it; read it, "
            "then pass trust_remote_code=True (on the command line --trust-remote-code)"
        )
    if isinstance(error, ImportError):
        if "lash" in reason and "ttention" in reason:
            return ModelError(
                f"{spec}: its config.json asks for an attention kernel that is not installed; "
                'set "_attn_implementation" and "attn_implementation" there to "sdpa" or remove '
                f"them, since they change no weights: {reason}"
            )
        if "bitsandbytes" in reason:
            reason = f"{command('bitsandbytes')}: {reason}"
        return ModelError(f"{spec}: takes a library that is not installed: {reason}")
    named = reason or "no reason given"
    if not isinstance(error, OSError | ValueError | RuntimeError):
        named = f"{type(error).__name__}: {named}"
    return ModelError(f"{spec}: cannot be loaded: {what} cannot be used: {named}")


def not_cached(spec: str, names: Sequence[str]) -> NetworkError:
    """The error that names the files of a Hub id without which it cannot be loaded offline."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return NetworkError(
        f"{spec}: not in the local cache ({', '.join(names[:3])}{more}), and the Hugging Face Hub "
        "cannot be reached; go online once, or give a local folder or a zoo: name"
    )


def check_json_files(spec: str, folder: Path) -> None:
    """Reads the JSON files of a checkpoint folder before a library does, and names a broken one.

    Raises:
        ModelError: a file is no JSON object, or counts in config.json are not believable.
    """
    for name in _JSON_FILES:
        path = folder / name
        if not path.exists():
            continue
        if not path.is_file():
            raise ModelError(f"{spec}: {name} is not a readable file")
        try:
            # not of a tokenizer, whose vocabulary is large
            hook = _once if name == CONFIG else None
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=hook)
        except OSError as error:
            raise ModelError(f"{spec}: {name} cannot be read: {error.strerror or error}") from error
        except RecursionError as error:
            raise ModelError(f"{spec}: {name} is nested too deeply to be read") from error
        except ValueError as error:
            raise ModelError(f"{spec}: {name} is not a JSON file: {error}") from error
        if not isinstance(content, dict):
            raise ModelError(
                f"{spec}: {name}: expected a JSON object, found {type(content).__name__}"
            )
        if name == "config.json":
            _check_config(spec, content)
        if name.endswith(".index.json"):
            _check_index(spec, folder, name, content)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of which every name has one value: the libraries take the last of several."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content and content[name] != value:
            raise ValueError(f"{name[:60]} is given twice, with different values")
        content[name] = value
    return content


def _check_config(spec: str, content: Mapping[str, Any]) -> None:
    where = f"{spec}: config.json"
    kind = content.get("model_type")
    if kind is not None and not isinstance(kind, str):
        raise ModelError(f"{where}: expected text as model_type, found {type(kind).__name__}")
    rotary = content.get("rope_parameters")
    named = [content, rotary if isinstance(rotary, dict) else {}]
    thetas = [holder["rope_theta"] for holder in named if holder.get("rope_theta") is not None]
    if len(thetas) == 2 and thetas[0] != thetas[1]:
        raise ModelError(
            f"{where}: rope_theta is {str(thetas[0])[:40]}, and {str(thetas[1])[:40]} in "
            "rope_parameters, which alone counts; remove the one that is wrong"
        )
    for nested in (content, *(v for v in content.values() if isinstance(v, dict))):
        for name, most in _COUNTS.items():
            value = nested.get(name)
            if value is None or (value == 0 and name in _MAY_BE_ZERO):
                continue
            # lists: one count per layer, in a few families
            for count in value if isinstance(value, list) else [value]:
                least = 0 if isinstance(value, list) else 1
                is_count = isinstance(count, int) and not isinstance(count, bool)
                if not is_count or not least <= count <= most:
                    shown = repr(count) if len(str(count)[:41]) <= 40 else f"{str(count)[:40]}…"
                    raise ModelError(
                        f"{where}: expected a whole number from {least} to {most} as {name}, "
                        f"found {shown}"
                    )


def _check_index(spec: str, folder: Path, name: str, content: Mapping[str, Any]) -> None:
    shards = content.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelError(f"{spec}: {name}: expected a weight_map of tensor names and file names")
    for shard in set(map(str, shards.values())):
        if not shard.endswith(".safetensors") or Path(shard).name != shard:
            raise ModelError(
                f"{spec}: {name}: expected names of .safetensors files in this folder as values of "
                f"weight_map, found {shard[:80]!r}"
            )
        if not (folder / shard).is_file():
            raise ModelError(f"{spec}: {name} names {shard}, which is not in the folder")
