"""What a process does that computes tasks of a study, one by one, until it is asked to end."""

import _thread
import os
import signal
import threading
from multiprocessing import connection, parent_process
from pathlib import Path
from types import FrameType
from typing import Literal, NamedTuple

from headsurgeon.errors import Interrupted
from headsurgeon.study.results import Cell


class Task(NamedTuple):
    """Something to compute: a cell; the learning rate of its arm and text; its untrained heads."""

    cell: Cell
    what: Literal["cell", "rates", "untrained heads"] = "cell"

    def __str__(self) -> str:
        return str(self.cell) if self.what == "cell" else f"{self.what} of {self.cell}"


def perform(folder: str, task: Task, device: str) -> None:
    """Does one task; its result is a file. Importable, for engines that send it elsewhere."""
    import transformers

    from headsurgeon.study.cell import run_cell
    from headsurgeon.study.rates import run_rates
    from headsurgeon.study.untrained import run_untrained

    # one bar for each model that is loaded is no use in a process that nobody looks at
    transformers.utils.logging.disable_progress_bar()
    cell = Cell(*task.cell)
    if task.what == "rates":
        run_rates(Path(folder), cell.arm, cell.text, device)
    elif task.what == "untrained heads":
        run_untrained(Path(folder), cell, device)
    else:
        run_cell(Path(folder), cell, device)


class _Ending:
    """Whether this process was asked to end, and what it is at."""

    asked = False
    working = False

    def ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        """A signal handler; training has one of its own, which ends the step and saves it."""
        again, self.asked = self.asked, True
        if not self.working:
            os._exit(1)
        if not again:
            raise KeyboardInterrupt


_ending = _Ending()


def begin_work(asked: connection.Connection) -> None:
    """Prepares a process of a pool, before its first task.

    It ends at the next safe point when the other end of `asked` is closed, or by SIGTERM, however
    often that comes: a pool sends it to all others as soon as one has ended. It ends at once when
    its parent is killed, since nobody waits for its cell any more. Ctrl-C and the signal of a
    closing terminal reach the parent as well, which asks.
    """
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _ending.ask)
    parent = parent_process()
    assert parent is not None, "called in a worker"
    sentinel = parent.sentinel

    def watch() -> None:
        killed = sentinel in connection.wait([sentinel, asked])
        if not killed and _ending.working:
            _thread.interrupt_main(signal.SIGTERM)
            connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(folder: str, task: Task, device: str) -> None:
    """As `perform`, in a process that `begin_work` has prepared; interrupted, the process ends."""
    _ending.working = True
    try:
        if _ending.asked:
            raise KeyboardInterrupt
        perform(folder, task, device)
    except (KeyboardInterrupt, Interrupted):
        # not handed on: the pool would give this process its next task
        os._exit(1)
    finally:
        _ending.working = False
