"""What schedulers and closing terminals send ends a command as Ctrl-C does: it tidies up first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# not every system has the last one
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Terminated(KeyboardInterrupt):
    """A signal that asks a process to end.

    Attributes:
        name: of the signal.
        exit_code: as a shell reports a process that the signal killed.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.name = signal.Signals(number).name
        self.exit_code = 128 + number


@contextmanager
def terminable() -> Iterator[None]:
    """While open, SIGTERM and SIGHUP raise `Terminated`, so that temporary files and locks go.

    Signals that are ignored (SIGHUP under `nohup`) or that the program handles stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)
