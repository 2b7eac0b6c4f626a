"""Files that are whole or absent: atomic writes, hashes, and the header every file carries."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headsurgeon.errors import InputError, OutputError, WriteError

SCHEMA_VERSION = 1


def header(kind: str) -> dict[str, Any]:
    """The fields that open every JSON, YAML and safetensors file the package writes."""
    return {"kind": kind, "schema": SCHEMA_VERSION, "headsurgeon": version("headsurgeon")}


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on success it takes the place of `path`.

    If the body raises, or the disk is full, the temporary file goes and `path` stays as it was.

    Raises:
        WriteError: the operating system refused to write.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp is private to its owner; a result file follows the user's umask as any other
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Writes `content` to `path` atomically, as UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Writes `content` to `path` atomically; NaN becomes null, since JSON has no NaN."""
    text = json.dumps(without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path | str, kind: str) -> dict[str, Any]:
    """Reads a JSON file that `write_json` wrote with `header(kind)`.

    Raises:
        InputError: no such file, no JSON in it, or a file of another kind or a newer schema.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not a JSON file: {error}") from error
    check_header(content, kind, path)
    return dict(content)


def check_header(content: Any, kind: str, path: Path | str) -> None:
    """Refuses a file of another kind or of a schema newer than this package knows."""
    found = content.get("kind") if isinstance(content, Mapping) else None
    if found != kind:
        raise InputError(f"{path}: expected a headsurgeon {kind} file, found {found or 'none'}")
    schema = int(content.get("schema", 0))
    if schema > SCHEMA_VERSION:
        raise InputError(
            f"{path}: written by a newer headsurgeon (schema {schema}, this one reads up to "
            f"{SCHEMA_VERSION}); upgrade the package"
        )


def claim_folder(folder: Path | str, marker: str) -> Path:
    """Creates `folder` for output, or accepts it when it is empty or already holds `marker`.

    Raises:
        OutputError: the folder holds files but not `marker`, so something else lives there.
    """
    folder = Path(folder)
    if folder.is_file():
        raise OutputError(f"{folder} is a file; expected a folder for the output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / marker).exists():
        raise OutputError(
            f"{folder} holds something else (no {marker} in it); choose an empty or a new folder"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot create {folder}: {error.strerror or error}") from error
    return folder


def sha256_text(parts: Iterator[str] | list[str]) -> str:
    """SHA-256 of several texts, each preceded by its length so that their borders count."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def append_line(path: Path | str) -> Callable[[Mapping[str, Any]], None]:
    """A function that appends one JSON object per call to the log at `path`."""
    path = Path(path)

    def append(entry: Mapping[str, Any]) -> None:
        try:
            with path.open("a", encoding="utf-8") as log:
                log.write(json.dumps(without_nan(entry), allow_nan=False) + "\n")
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error.strerror or error}") from error

    return append


def without_nan(value: Any) -> Any:
    """The same plain data with NaN and infinities, which JSON does not have, as None."""
    if isinstance(value, float):
        return value if value - value == 0.0 else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def _umask() -> int:
    # the only portable way to read the umask is to set it
    mask = os.umask(0)
    os.umask(mask)
    return mask
