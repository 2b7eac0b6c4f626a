"""Which files of a folder we wrote: nothing else is ever replaced."""

import hashlib
from pathlib import Path

from headsurgeon.errors import InputError, OutputError
from headsurgeon.files import read_json
from headsurgeon.locks import LOCK
from headsurgeon.temporaries import is_temporary


def manifest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder, by its path relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def check_own(folder: Path, marker: str, kind: str) -> None:
    """Refuses a folder unless everything in it is listed in its marker and unchanged.

    An empty folder passes.

    Raises:
        OutputError: names what is not ours.
    """
    entries = [path for path in sorted(folder.rglob("*")) if not _passing(path, folder)]
    if not entries:
        return
    try:
        listed = read_json(folder / marker, kind).get("files")
    except InputError as error:
        raise OutputError(f"{error}; choose another folder") from error
    if not isinstance(listed, dict):
        raise OutputError(
            f"{folder}: {marker} does not list the files that were written with it, so there is no "
            "telling which are yours; choose another folder, or remove this one yourself"
        )
    known = {folder / name for name in listed}
    parents = {parent for path in known for parent in path.parents}
    for path in entries:
        name = path.relative_to(folder).as_posix()
        if path == folder / marker or (path.is_dir() and path in parents and not path.is_symlink()):
            continue
        ours = path in known and path.is_file() and not path.is_symlink()
        if not ours or _sha256(path) != listed[name]:
            what = "was changed after" if ours else "is not one of the files"
            raise OutputError(
                f"{folder} would be replaced, but {name} {what} headsurgeon wrote there; move it "
                "away, or choose another folder"
            )


def _passing(path: Path, folder: Path) -> bool:
    """Whether this is a lock or a temporary file of ours."""
    parts = path.relative_to(folder).parts
    return any(part == LOCK or is_temporary(part) for part in parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
