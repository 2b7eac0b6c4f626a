"""What the demo tells while it runs; everything told is kept, so demo.json holds all of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from headsurgeon.diagnosis import Diagnosis
from headsurgeon.report import Table
from headsurgeon.training import StepEvent


@runtime_checkable
class Observer(Protocol):
    """Who listens; the command line prints. The demo itself prints nothing."""

    def started(self, what: str) -> None:
        """A stage begins."""

    def finished(self, what: str, seconds: float) -> None:
        """A stage is over."""

    def trained(self, arm: str, event: StepEvent) -> None:
        """An optimiser step of an arm is done."""

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        """The diagnosis is there, to be shown as a map."""

    def heading(self, text: str) -> None:
        """A new part begins."""

    def said(self, text: str) -> None:
        """A sentence for the reader."""

    def tabulated(self, table: Table) -> None:
        """A table for the reader."""


class Journal:
    """Passes on to an observer what happens, and keeps what was told.

    Attributes:
        observer: who listens.
        entries: everything told so far, in order, as plain data.
    """

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self.entries: list[dict[str, Any]] = []
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the demo began."""
        return time.perf_counter() - self._start

    @contextmanager
    def stage(self, what: str) -> Iterator[None]:
        """Tells that something is going on and, at its end, how long it took."""
        self.observer.started(what)
        start = time.perf_counter()
        yield
        seconds = round(time.perf_counter() - start, 1)
        self.entries.append({"stage": what, "seconds": seconds})
        self.observer.finished(what, seconds)

    def heading(self, text: str) -> None:
        """Begins a new part."""
        self.entries.append({"heading": text})
        self.observer.heading(text)

    def say(self, text: str) -> None:
        """Tells a sentence."""
        self.entries.append({"text": text})
        self.observer.said(text)

    def table(self, table: Table) -> None:
        """Shows a table."""
        self.entries.append({"table": table.key, **table.to_dict()})
        self.observer.tabulated(table)
