"""Files that are whole or absent: atomic writes, hashes, and the header every file carries."""

import hashlib
import json
import math
import os
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headsurgeon.errors import InputError, WriteError
from headsurgeon.temporaries import forget, remove_left_over, temporary_beside

# The form of each kind of file, as it is written now; kinds that never changed are at 1.
# evaluation 2: recovery and drift say which heads, where 1 had only said how many.
# evaluation 3, merged_checkpoint 2: `patches`, since there may be several, in place of `patch`.
SCHEMA_VERSIONS: dict[str, int] = {"evaluation": 3, "merged_checkpoint": 2}
HEADER = ("kind", "schema", "headsurgeon")
# bytes of the largest text file that is read; ours have a few thousand for every head
MAX_TEXT = 2**30
# levels of nesting in JSON; our own files have fewer than ten
MAX_DEPTH = 64


def header(kind: str) -> dict[str, Any]:
    """The fields that open every JSON, YAML and safetensors file the package writes."""
    return {"kind": kind, "schema": schema_version(kind), "headsurgeon": package_version()}


def schema_version(kind: str) -> int:
    """The version of the form in which a kind of file is written, and up to which it is read."""
    return SCHEMA_VERSIONS.get(kind, 1)


def package_version() -> str:
    """The version of this package, also in a source tree that was never installed."""
    try:
        return version("headsurgeon")
    except PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        with suppress(OSError, ValueError, KeyError):
            return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
        return "unknown"


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; on success it takes the place of `path`.

    If the body raises, or the disk is full, the temporary file goes and `path` stays as it was.
    What killed processes left half-written for this path goes, too. The new file's permissions
    follow the umask. Where `path` is a link, the file that it points to is replaced.

    Raises:
        WriteError: the operating system refused to write, or `path` is no ordinary file.
    """
    shown, path = path, _target(Path(path))
    temporary = temporary_beside(path)
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_left_over(path.parent, path.name)
            mode = _create(temporary)
        except ValueError as error:
            raise _not_written(shown, error) from error
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # a library may have put a file of its own there, private to its owner
        temporary.chmod(mode)
        temporary.replace(path)
    except OSError as error:
        raise _not_written(shown, error) from error
    finally:
        forget(temporary)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes `content` to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Writes `content` to `path` atomically, as UTF-8.

    What UTF-8 cannot hold (names of files that are not text) is written as its escape, so that one
    name never costs a result; in JSON this is what the standard says.
    """
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Writes `content` to `path` atomically; NaN becomes null, since JSON has no NaN."""
    text = json.dumps(without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_text(path: Path | str) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: no such file, no ordinary file (a folder, a pipe, a device), too large, or not
            UTF-8.
    """
    path = Path(path)
    shown = shorten(str(path), 300)
    try:
        # a pipe or a device would keep us waiting for ever
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"cannot read {shown}: it is no ordinary file")
            if status.st_size > MAX_TEXT:
                raise InputError(
                    f"cannot read {shown}: {status.st_size:,} bytes are more than any file of ours "
                    f"has (at most {MAX_TEXT:,})"
                )
            return file.read().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {shown}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{shown} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error
    except ValueError as error:
        raise InputError(f"cannot read {shown!r}: {error}") from error


def read_object(path: Path | str) -> dict[str, Any]:
    """Reads a file that holds one JSON object, strictly.

    Raises:
        InputError: as `read_text`; no JSON, no object, a name that stands twice, NaN or infinity, a
            whole number beyond 64 bit, or nested deeper than `MAX_DEPTH`. Names the place.
    """
    content = _read_value(path)
    if not isinstance(content, dict):
        raise InputError(
            f"{shorten(str(path), 300)}: expected a JSON object, found a {type(content).__name__}"
        )
    return content


def parse_json(text: str) -> Any:
    """The value that a JSON text stands for, strictly; see `read_object`.

    Raises:
        ValueError: it is none; the message says why and where.
    """
    try:
        content = json.loads(text, object_pairs_hook=_distinct, parse_int=_whole)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    # with a stack of its own: what was read may be nested as deep as the reader could go
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        place, value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{place or 'the value'} is not a finite number")
        if isinstance(value, dict):
            for name, item in value.items():
                below = f"{place}.{shorten(name)}" if place else shorten(name)
                waiting.append((below, item, depth + 1))
        if isinstance(value, list):
            waiting.extend(
                (f"{place}[{index}]", item, depth + 1)
                for index, item in enumerate(value)
                if isinstance(item, float | dict | list)
            )
    return content


def read_json(path: Path | str, kind: str) -> dict[str, Any]:
    """Reads a JSON file that `write_json` wrote with `header(kind)`.

    Raises:
        InputError: as `read_object`, or a file of another kind or a newer schema.
    """
    content = _read_value(path, f" (expected a headsurgeon {kind} file)")
    check_header(content, kind, path)
    return dict(content)


def check_header(content: Any, kind: str, path: Path | str) -> None:
    """Refuses a file of another kind or of a schema newer than this package knows.

    Raises:
        InputError: as said; or the schema is no whole number from 1 on.
    """
    if fault := header_fault(content, kind):
        raise InputError(f"{shorten(str(path), 300)}: {fault}")


def header_fault(content: Any, kind: str) -> str | None:
    """What is wrong with the header of a file's content, whatever its format; None if nothing."""
    there = content.get("kind") if isinstance(content, Mapping) else None
    # kinds of two words had a hyphen at first
    if not isinstance(there, str) or there.replace("-", "_") != kind:
        named = "none" if there is None else shorten(str(there))
        return f"expected a headsurgeon {kind} file, found {named}"
    schema, known = content.get("schema"), schema_version(kind)
    if type(schema) is not int or schema < 1:
        shown = shorten(repr(schema))
        return f"schema: expected a whole number from 1 to {known}, found {shown}"
    if schema > known:
        by = content.get("headsurgeon")
        version = f" of version {shorten(by, 20)}" if isinstance(by, str) and by else ""
        return (
            f"written by a newer headsurgeon (schema {schema}{version}; this one reads up to "
            f"schema {known}); upgrade the package"
        )
    return None


def shorten(text: str, longest: int = 80) -> str:
    """A text as a message quotes it: not longer than that."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


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
        line = json.dumps(without_nan(entry), allow_nan=False) + "\n"
        try:
            # in one piece, and never into a pipe, which would keep us waiting
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, 0o666), "ab") as log:
                log.write(line.encode("ascii"))
        except (OSError, ValueError) as error:
            raise _not_written(path, error) from error

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


def _target(path: Path) -> Path:
    """What a path leads to; refuses what a file cannot replace without harm."""
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return target
    except (OSError, ValueError) as error:
        raise _not_written(path, error) from error
    if stat.S_ISLNK(mode):
        raise WriteError(f"cannot write {path}: it is a link that leads to itself")
    if not stat.S_ISREG(mode):
        raise WriteError(f"cannot write {path}: it exists and is no ordinary file")
    return target


def _create(temporary: Path) -> int:
    """Creates a file as the umask (or the folder's access list) says; returns its permissions."""
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _not_written(path: Path | str, error: Exception) -> WriteError:
    reason = getattr(error, "strerror", None) or error
    return WriteError(f"cannot write {shorten(str(path), 300)}: {reason}")


def _read_value(path: Path | str, expected: str = "") -> Any:
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(
            f"{shorten(str(path), 300)} is not a JSON file{expected}: {error}"
        ) from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shorten(twice)!r} stands twice in one object")
    return entries


def _whole(digits: str) -> int:
    # twenty digits hold all numbers of 64 bit; longer ones take a time that grows with their square
    value = int(digits) if len(digits) <= 20 else None
    if value is None or not -(2**63) <= value < 2**64:
        raise ValueError(f"the whole number {shorten(digits, 30)} does not fit 64 bit")
    return value
