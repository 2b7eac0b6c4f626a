"""Files that a command replaces every time, in a folder where the user may work, too.

What we wrote there stands with its hash in a hidden list beside it, so that a later call replaces
that and nothing else: not what was edited since, and not a file of that name from somewhere else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headsurgeon.errors import OutputError
from headsurgeon.files import header, write_json
from headsurgeon.folders import (
    LIST,
    MANIFEST,
    check_own,
    claim_folder,
    manifest_of,
    read_manifest,
    replace_own,
    staging,
)


def check_own_files(folder: Path, names: tuple[str, ...]) -> None:
    """Refuses what `writing` would refuse, before anything is computed; changes nothing.

    Args:
        names: of the files that are going to be written.

    Raises:
        OutputError: one of them, or of what was written before, is somebody else's or was edited.
    """
    manifest = read_manifest(folder, LIST) or {}
    try:
        check_own(folder, manifest, sorted({*names, *manifest}))
    except OSError as error:
        raise OutputError(f"cannot read {folder}: {error.strerror or error}") from error


@contextmanager
def writing(folder: Path, marker: str) -> Iterator[Path]:
    """Yields an empty folder; what is put there takes the place of what was written here before.

    All of it does, at the end, or nothing; files that are not written again are removed. Call it
    while the folder, or one that it lies in, is `locked`.

    Args:
        marker: the file that says whose folder it is.

    Raises:
        OutputError: as `check_own_files`, or as `claim_folder`.
        WriteError: the system refused; what was there stays.
    """
    claim_folder(folder, marker)
    with staging(folder) as staged:
        yield staged
        new = manifest_of(staged)
        check_own_files(folder, tuple(new))
        write_json(staged / LIST, {**header("files"), "marker": marker, MANIFEST: new})
        replace_own(staged, folder, LIST, read_manifest(folder, LIST) or {}, marker)
