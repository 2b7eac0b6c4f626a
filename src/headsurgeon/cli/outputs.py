"""Whether an output can be written, asked before anything is loaded or measured."""

import os
import stat
import tempfile
from pathlib import Path

from headsurgeon.errors import InputError, OutputError
from headsurgeon.files import check_header, read_object
from headsurgeon.folders import check_claimable

# what a file's name grows by while it is being written, and the longest name within a folder
_TEMPORARY = 16
_INSIDE = 64


def check_file(path: Path | str, example: str = "result.json") -> None:
    """Refuses a path that no file can be written to.

    Args:
        path: where a file is to be written.
        example: a name that would do, for the message.

    Raises:
        OutputError: a folder or a device, a parent that is a file or cannot be written to, or a
            name that is too long.
    """
    path = Path(path)
    kind = _kind(path)
    if kind is not None and stat.S_ISDIR(kind):
        raise OutputError(f"{path} is a folder; expected a file such as {example}")
    if kind is not None and not stat.S_ISREG(kind):
        raise OutputError(f"{path} is not an ordinary file; expected one such as {example}")
    _check_parents(path, path.parent, _TEMPORARY)


def check_replaceable(path: Path | str, kind: str) -> None:
    """Refuses to replace a file that is no earlier result of the same kind.

    Raises:
        OutputError: something else is there.
    """
    path = Path(path)
    if not path.exists():
        return
    try:
        check_header(read_object(path), kind, path)
    except InputError as error:
        raise OutputError(
            f"{path} exists and is no earlier {kind} written by headsurgeon; "
            "choose another name, or move it away"
        ) from error


def check_own_picture(path: Path | str) -> None:
    """Refuses to replace a file that is no picture of ours, which say so in their first chunk.

    Raises:
        OutputError: something else is there.
    """
    _check_beginning(Path(path), "picture", b"\x89PNG", b"headsurgeon")


def check_own_page(path: Path | str) -> None:
    """Refuses to replace a file that is no page of ours, which say so at their beginning.

    Raises:
        OutputError: something else is there.
    """
    _check_beginning(Path(path), "page", b"", b'<meta name="generator" content="headsurgeon')


def _check_beginning(path: Path, what: str, start: bytes, mark: bytes) -> None:
    if not path.exists():
        return
    with path.open("rb") as opened:
        beginning = opened.read(1024)
    if not beginning.startswith(start) or mark not in beginning:
        raise OutputError(
            f"{path} exists and is no {what} written by headsurgeon; "
            "choose another name, or move it away"
        )


def check_folder(path: Path | str, marker: str) -> None:
    """Refuses a path that cannot be, or become, a folder with files of one command in it.

    Args:
        marker: the file that says whose folder it is; see `folders.claim_folder`.

    Raises:
        OutputError: a file, a parent that is a file, a folder that cannot be written to, one that
            holds something else, or a name that is too long.
    """
    path = Path(path)
    kind = _kind(path)
    if kind is not None and not stat.S_ISDIR(kind):
        raise OutputError(f"{path} is a file; expected a folder for the output")
    _check_parents(path, path, 0)
    check_claimable(path, marker)


def _kind(path: Path) -> int | None:
    """The mode of what is at the path, None where there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise OutputError(f"cannot write to {path}: {_reason(error)}") from error


def _check_parents(path: Path, folder: Path, growth: int) -> None:
    """Finds the nearest folder that exists, and tries to write into it."""
    existing = folder.absolute()
    while (kind := _kind(existing)) is None and existing != existing.parent:
        existing = existing.parent
    if kind is not None and not stat.S_ISDIR(kind):
        raise OutputError(f"cannot write to {path}: {existing} is a file, not a folder")
    try:
        longest, deepest = (os.pathconf(existing, name) for name in ("PC_NAME_MAX", "PC_PATH_MAX"))
        # a file that vanishes when it is closed: permissions alone do not tell of full disks,
        # read-only mounts and quotas
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {existing}: {_reason(error)}") from error
    names = [len(os.fsencode(name)) for name in path.absolute().parts[1:]]
    if names and (max([*names[:-1], 0]) > longest or names[-1] + growth > longest):
        raise OutputError(
            f"cannot write to {path}: a name in it is too long (of {max(names)} bytes)"
        )
    if sum(names) + len(names) + _INSIDE > deepest:
        raise OutputError(f"cannot write to {path}: the path is too long ({sum(names)} bytes)")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
