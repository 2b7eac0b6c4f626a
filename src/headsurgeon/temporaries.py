"""Temporary names: they tell our own unfinished files from everything that belongs to the user.

A name carries the process that writes it, so that what a killed process left can be told from what
a living one is writing: `.NAME.hs-ORIGIN-PID-RANDOM`, ORIGIN being the machine (and, in a
container, its table of processes).
"""

import hashlib
import os
import re
import secrets
import shutil
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_OWN = re.compile(r"\..*\.hs-(?P<origin>[0-9a-f]{8})-(?P<pid>\d{1,10})-[0-9a-f]{8}", re.DOTALL)
# what versions before this one left: a file of ours by name, and eight characters by chance
_EARLIER = re.compile(
    r"\.(demo|diagnosis|comparison|run|headsurgeon|first_token_test)\.json\.[a-z0-9_]{8}"
    r"|\.(heads|layers)\.csv\.[a-z0-9_]{8}"
    r"|\.(patch|last|best-\d{6,})\.safetensors\.[a-z0-9_]{8}"
    r"|\.log\.jsonl\.[a-z0-9_]{8}"
    r"|\.summary\.html\.[a-z0-9_]{8}"
    r"|\.(maps|head_map|mass|loss|result)\.png\.[a-z0-9_]{8}"
)
# a file name has at most 255 bytes on the usual file systems, and ours adds some forty
_LONGEST = 200
_alive: set[str] = set()


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of `path`, for what is going to take its place."""
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    chance = secrets.token_hex(4)
    beside = path.with_name(f".{name}.hs-{_origin()}-{os.getpid()}-{chance}")
    _alive.add(beside.name)
    return beside


def forget(temporary: Path) -> None:
    """Removes a temporary file or folder of this process, if it is still there."""
    with suppress(OSError):
        _remove(temporary)
    _alive.discard(temporary.name)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is an unfinished one of ours."""
    return bool(_OWN.fullmatch(name) or _EARLIER.fullmatch(name))


def is_left_over(name: str) -> bool:
    """Whether an unfinished one of this name belongs to a process of this machine that is gone."""
    match = _OWN.fullmatch(name)
    return match is not None and match["origin"] == _origin() and not _writes(name, match["pid"])


def remove_left_over(folder: Path, beside: str | None = None) -> None:
    """Removes what processes of this machine that are gone left unfinished in `folder`.

    Args:
        beside: only what was going to become the file of this name.
    """
    prefix = None if beside is None else f".{os.fsdecode(os.fsencode(beside)[:_LONGEST])}.hs-"
    with suppress(OSError):
        for name in os.listdir(folder):
            if (prefix is None or name.startswith(prefix)) and is_left_over(name):
                _try_remove(folder / name)


def remove_all_left_over(folder: Path) -> None:
    """Removes everything unfinished at any depth; for a folder in which nobody else works.

    What a living process of this machine is writing stays all the same.
    """
    for place, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            match = _OWN.fullmatch(name)
            writing = match and match["origin"] == _origin() and _writes(name, match["pid"])
            if is_temporary(name) and not writing:
                _try_remove(Path(place, name))
        folders[:] = [name for name in folders if not is_temporary(name)]


def _writes(name: str, pid: str) -> bool:
    """Whether the process of this number lives and, where it is this one, still writes `name`."""
    if int(pid) == os.getpid():
        return name in _alive
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _try_remove(path: Path) -> None:
    # what cannot be removed does no harm where it is
    with suppress(OSError):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _origin() -> str:
    """The machine and its table of processes: a number of another container says nothing here."""
    try:
        processes = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        processes = ""
    return hashlib.sha256(f"{socket.gethostname()} {processes}".encode()).hexdigest()[:8]
