"""Output folders: claimed for one process at a time, and nothing replaced that is not our own."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headsurgeon.errors import InputError, OutputError, WriteError
from headsurgeon.files import read_object, write_bytes, write_json
from headsurgeon.locks import LOCK, lock
from headsurgeon.temporaries import (
    forget,
    is_temporary,
    remove_all_left_over,
    temporary_beside,
)

# where the names and hashes of all that we wrote stand in a folder's marker
MANIFEST = "files"
# where they stand when the marker has no place for them; see `own_files`
LIST = ".headsurgeon.files.json"


def claim_folder(folder: Path | str, marker: str) -> Path:
    """Creates `folder` for output, or accepts it when it is empty or already holds `marker`.

    What an interrupted write of ours left there (a temporary file, a lock) is no content: a folder
    with nothing else in it is empty. `locked` removes it.

    Raises:
        OutputError: the folder holds files but not `marker`, so something else lives there; or
            there can be no folder of that name.
        WriteError: it cannot be created.
    """
    folder = Path(folder)
    check_claimable(folder, marker)
    _create(folder)
    return folder


def check_claimable(folder: Path | str, marker: str) -> None:
    """Refuses what `claim_folder` would refuse, and creates nothing.

    Raises:
        OutputError: as `claim_folder`.
    """
    folder = Path(folder)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        if folder.is_symlink():
            raise OutputError(
                f"{folder} is a link to {os.readlink(folder)}, which does not exist; create that "
                "folder, or choose another"
            ) from None
        return
    except NotADirectoryError:
        if folder.is_symlink() or folder.exists():
            raise OutputError(f"{folder} is a file; expected a folder for the output") from None
        raise OutputError(f"{folder} cannot be a folder: it lies below a file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{str(folder)[:300]} cannot be used for output: {reason}") from error
    if (folder / marker).is_file() or _listed_as(folder) == marker:
        return
    if any(not _is_ours(name) for name in names):
        raise OutputError(
            f"{folder} holds something else (no {marker} in it); choose an empty or a new folder"
        )


@contextmanager
def locked(folder: Path | str, marker: str) -> Iterator[Path]:
    """Claims `folder` for this process alone, and clears away what interrupted writes left there.

    Nothing else is removed. Inside, the same thread may claim the folder again (a command holds it
    from its first check to its last file, and the functions it calls hold it, too). The kernel lets
    go of it when the process ends, however it ends. A folder that was created here and holds
    nothing at the end goes again, with the parents created for it.

    Args:
        marker: the file that says whose folder it is; see `claim_folder`.

    Raises:
        OutputError: as `claim_folder`, or another process works there; the message has its number.
        WriteError: the folder cannot be created or written.
    """
    folder = Path(folder)
    check_claimable(folder, marker)
    created = _create(folder)
    # where it lies now, whatever becomes of the working directory
    place = Path(os.path.realpath(folder))
    try:
        with lock(place):
            # once more, since another process may have written between the first look and the lock
            check_claimable(folder, marker)
            remove_all_left_over(place)
            yield folder
    finally:
        for new in created:
            with suppress(OSError):
                new.rmdir()


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder inside `folder`, gone at the end; a killed process' goes at the next claim.

    It follows the umask, and being on the same file system its files can take their place in
    `folder` by name alone.

    Raises:
        WriteError: it cannot be created.
    """
    staged = temporary_beside(folder / "staged")
    try:
        try:
            staged.mkdir()
        except OSError as error:
            raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error
        yield staged
    finally:
        forget(staged)


def manifest_of(folder: Path, below: Iterable[str] = ("",)) -> dict[str, str]:
    """SHA-256 of every file in some parts of `folder`, by its name relative to it.

    Args:
        below: names of files or folders in it; all of it by default. What is not there is left out.
    """
    names = (name for part in below for name in _names(folder, part))
    return {name: _sha256(folder / name) for name in sorted(names)}


def read_manifest(folder: Path, marker: str) -> dict[str, str] | None:
    """What the marker of `folder` says that we wrote; None where it has no list (or there is none).

    Raises:
        OutputError: the list is damaged.
    """
    path = folder / marker
    if not path.is_file():
        return None
    try:
        manifest = read_object(path).get(MANIFEST)
    except InputError as error:
        raise OutputError(str(error)) from error
    return None if manifest is None else check_manifest(manifest, path)


def check_manifest(manifest: Any, path: Path) -> dict[str, str]:
    """A manifest that was read from `path`, as one.

    Raises:
        OutputError: it is none, or names files outside its folder.
    """
    if not isinstance(manifest, Mapping) or not all(
        isinstance(name, str) and isinstance(value, str) and _is_inside(name)
        for name, value in manifest.items()
    ):
        raise OutputError(f"{path}: {MANIFEST} is no list of files and hashes; the file was edited")
    return dict(manifest)


def check_own(
    folder: Path,
    manifest: Mapping[str, str],
    below: Iterable[str] = ("",),
    ignoring: Iterable[str] = (),
) -> None:
    """Refuses unless every file in some parts of `folder` is one that we wrote and is unchanged.

    Files that are no longer there are no obstacle.

    Args:
        manifest: names and hashes of what we wrote; two hashes, separated by a space, where a
            replacement was interrupted and either file may be there.
        below: names of files or folders in it; all of it by default.
        ignoring: names that are not looked at, such as the marker that holds the manifest.

    Raises:
        OutputError: names what is not ours and what was changed. Nothing was touched.
    """
    left_out = set(ignoring)
    faults = []
    for part in below:
        for name in sorted(_names(folder, part)):
            if name in left_out:
                continue
            if name not in manifest:
                faults.append(f"{name} was not written by headsurgeon")
            elif (folder / name).is_symlink() or _sha256(folder / name) not in manifest[
                name
            ].split():
                faults.append(f"{name} was changed since")
    if faults:
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise OutputError(
            f"{folder} would be replaced, but {'; '.join(faults[:5])}{more}: move that away, "
            "or choose another folder"
        )


def replace_own(
    staged: Path, folder: Path, marker: str, manifest: Mapping[str, str], late: str
) -> None:
    """Lets the files of `staged` take the place of those we wrote to `folder` before.

    Call it while `folder` is `locked`, with `staged` made by `staging(folder)`, after `check_own`.
    When the system refuses, all that was there comes back. After a kill half way the marker knows
    both lists, so that the next call accepts the folder, and `late` is missing, so that nobody
    takes it for a whole one.

    Args:
        staged: all new files, among them `marker`, a JSON object with `files`, their manifest.
        manifest: what is in `folder` now; empty where it is new.
        late: the file without which the others are not read; it goes first and comes last.

    Raises:
        WriteError: the system refused; what was there stays.
    """
    new = sorted(_names(staged, ""), key=lambda name: (name == marker, name == late))
    old = sorted(manifest, key=lambda name: (name != late, name))
    with staging(folder) as previous:
        moved: list[tuple[Path, Path]] = []

        def move(source: Path, target: Path) -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            moved.append((source, target))

        said = (folder / marker).read_bytes() if (folder / marker).is_file() else None
        try:
            _announce(folder, staged, marker, manifest)
            for name in old:
                if name != marker and (folder / name).exists():
                    move(folder / name, previous / name)
            for name in new:
                move(staged / name, folder / name)
        except OSError as error:
            for source, target in reversed(moved):
                with suppress(OSError):
                    target.rename(source)
            with suppress(OSError, WriteError):
                if said is not None:
                    write_bytes(folder / marker, said)
            raise WriteError(
                f"cannot write {folder}: {error.strerror or error}; what was there stays"
            ) from error
    _remove_empty(folder, old)


def _remove_empty(folder: Path, names: Iterable[str]) -> None:
    """Removes what folders these files left empty, deepest first, but for `folder` itself."""
    emptied = {parent for name in names for parent in (folder / name).parents}
    for parent in sorted(emptied, key=lambda path: -len(path.parts)):
        if folder in parent.parents:
            with suppress(OSError):
                parent.rmdir()


def _announce(folder: Path, staged: Path, marker: str, before: Mapping[str, str]) -> None:
    """Says in the marker, before anything moves, that old and new files may both be there."""
    content = read_object(staged / marker)
    after = check_manifest(content[MANIFEST], staged / marker)
    both = {
        name: " ".join(dict.fromkeys(f"{before.get(name, '')} {after.get(name, '')}".split()))
        for name in sorted({*before, *after})
    }
    write_json(folder / marker, {**content, MANIFEST: both})


def _listed_as(folder: Path) -> object:
    """The marker of a folder with a list, which is gone while its files are being replaced."""
    try:
        return read_object(folder / LIST).get("marker")
    except InputError:
        return None


def _is_ours(name: str) -> bool:
    return name == LOCK or is_temporary(name)


def _is_inside(name: str) -> bool:
    path = Path(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _create(folder: Path) -> list[Path]:
    """Creates a folder and returns what was created, deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot create {folder}: {error.strerror or error}") from error
    return missing


def _names(folder: Path, part: str) -> Iterator[str]:
    """Every file, link and other thing that is no folder, below a part of `folder`."""
    start = folder / part if part else folder
    if start.is_symlink() or (start.exists() and not start.is_dir()):
        yield part
    for place, folders, files in os.walk(start):
        links = [name for name in folders if Path(place, name).is_symlink()]
        for name in [*files, *links]:
            file = Path(place, name).relative_to(folder)
            if not any(_is_ours(piece) for piece in file.parts):
                yield file.as_posix()


def _sha256(path: Path) -> str:
    """SHA-256 of a file; of anything else, no hash that a file could have."""
    if path.is_symlink() or not path.is_file():
        return "not a file"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
