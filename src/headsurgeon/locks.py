"""One process at a time in a folder; the lock goes with the process, however it ends."""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headsurgeon.errors import OutputError, WriteError

LOCK = ".headsurgeon.lock"
# a file system without locks: they are then left out, as nothing there could keep them
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
_BUSY = {errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK}

# the folders this process holds, by device and number: which process and thread, and how often
_held: dict[tuple[int, int], tuple[int, int, int]] = {}
_guard = threading.Lock()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Holds an existing folder for this process and thread; inside, it may be held once more.

    The kernel lets go of it when the process ends, also by SIGKILL. Where the file system knows no
    locks nothing is held.

    Raises:
        OutputError: another process, or another thread of this one, works there.
        WriteError: the lock file cannot be written.
    """
    place = _identity(folder)
    mine = (os.getpid(), threading.get_ident())
    with _guard:
        process, thread, times = _held.get(place, (0, 0, 0))
        again = (process, thread) == mine
        if process == mine[0] and not again:
            raise OutputError(_refusal(folder, f"another thread of this process ({process})"))
        descriptor = None if again else _take(folder)
        _held[place] = (*mine, times + 1 if again else 1)
    try:
        yield
    finally:
        with _guard:
            process, thread, times = _held.pop(place)
            if times > 1:
                _held[place] = (process, thread, times - 1)
        if descriptor is not None:
            # gone before it is let go of, so that nobody takes a lock on a file without a name
            with suppress(OSError):
                (folder / LOCK).unlink()
            os.close(descriptor)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _take(folder: Path) -> int:
    path = folder / LOCK
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _BUSY:
                holder = _holder(descriptor)
                os.close(descriptor)
                raise OutputError(_refusal(folder, holder)) from None
            if error.errno not in _UNSUPPORTED:
                os.close(descriptor)
                raise WriteError(f"cannot lock {folder}: {error.strerror or error}") from error
        # who held it before may have removed the file between our opening and our locking
        if _same_file(path, descriptor):
            break
        os.close(descriptor)
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        named = path.lstat()
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _holder(descriptor: int) -> str:
    content = os.pread(descriptor, 32, 0).strip()
    return f"process {int(content)}" if content.isdigit() else "another process"


def _refusal(folder: Path, holder: str) -> str:
    return f"{holder} works in {folder}; wait until it ends, stop it, or choose another folder"
