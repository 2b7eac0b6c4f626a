"""What a run logs, sent on to whoever draws it: TensorBoard, or another through the same sink.

The log of the run stays the one record. It is read as it grows, so that whatever trains knows
nothing of sinks, and a run that is resumed or has ended is sent like one that is still running.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from headsurgeon.errors import WriteError
from headsurgeon.extras import require
from headsurgeon.report.colours import colour
from headsurgeon.training.run_file import LOG_NAME

# the folder of event files in that of a run or study
TENSORBOARD = "tensorboard"
_PACKAGE = "tensorboardX"
# pixels of a head's side
_CELL = 16


@runtime_checkable
class Sink(Protocol):
    """Who takes numbers and pictures over steps."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """A number, such as `dev/loss`, at an optimiser step."""

    def image(self, name: str, picture: UInt8[np.ndarray, "row column 3"], step: int) -> None:
        """A picture in red, green and blue, at an optimiser step."""

    def close(self) -> None:
        """Nothing more is to come."""


class TensorBoard:
    """Event files for TensorBoard, through tensorboardX, which needs neither it nor torch."""

    def __init__(self, folder: Path) -> None:
        """Starts over: event files of an earlier session in `folder` are removed.

        Raises:
            MissingPackage: the package is not installed; says how to install it.
            WriteError: the folder cannot be written.
        """
        require(_PACKAGE, "--tensorboard")
        from tensorboardX import SummaryWriter

        try:
            for earlier in folder.glob("events.out.tfevents.*"):
                # a run that is resumed is sent from its start, and each step once
                earlier.unlink()
            self._writer = SummaryWriter(str(folder), write_to_disk=True)
        except OSError as error:
            raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error

    def scalar(self, name: str, value: float, step: int) -> None:
        """See `Sink`."""
        self._writer.add_scalar(name, value, step)

    def image(self, name: str, picture: UInt8[np.ndarray, "row column 3"], step: int) -> None:
        """See `Sink`."""
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        """See `Sink`."""
        self._writer.close()


class Relay:
    """Sends the lines of a run's log to a sink, each once, as they come."""

    def __init__(self, folder: Path, sink: Sink) -> None:
        """Of the run in `folder`, whose log may not be there yet."""
        self._log, self._sink = folder / LOG_NAME, sink
        self._read = 0

    def send(self) -> None:
        """What was written since; a line that is being written waits for the next call."""
        if not self._log.is_file():
            return
        with self._log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            step = int(entry.get("step", 0))
            for name, value in _scalars(entry):
                if value is not None and math.isfinite(value):
                    self._sink.scalar(name, float(value), step)
            if entry["kind"] == "evaluation" and entry.get("heads"):
                mass = np.array(entry["heads"]["first_token_mass"], dtype=np.float64)
                self._sink.image("heads/first_token_mass", head_picture(mass), step)


def send_log(folder: Path, sink: Sink) -> None:
    """All that the log of a run has so far; then the sink is closed."""
    try:
        Relay(folder, sink).send()
    finally:
        sink.close()


def head_picture(mass: Float[np.ndarray, "layer head"]) -> UInt8[np.ndarray, "row column 3"]:
    """The head map without letters: a square for each head, layer 0 at the top."""
    colours = [[bytes.fromhex(colour(float(each))[1:]) for each in row] for row in mass]
    pixels = np.array([[list(each) for each in row] for row in colours], dtype=np.uint8)
    return np.repeat(np.repeat(pixels, _CELL, axis=0), _CELL, axis=1)


def _scalars(entry: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    if entry["kind"] == "step":
        for name in ("loss", "learning_rate", "gradient_norm", "tokens_per_second"):
            yield f"train/{name}", entry.get(name)
        for name, value in entry.get("terms", {}).items():
            yield f"train/term_{name}", value
    else:
        # of the start line it is the untouched model
        where = "untouched" if entry["kind"] == "start" else "dev"
        yield f"{where}/loss", entry["dev_loss"]
        for name, value in entry.get("probes", {}).items():
            yield f"{where}/probe_{name}", value
    for name in ("healthy", "healthy_operated", "first_token_mass"):
        yield f"heads/{name}", entry.get(name)
    for zone, drift in (entry.get("drift") or {}).items():
        yield f"drift/{zone}_drifted", drift["drifted"]
        yield f"drift/{zone}_mean", drift["mean"]
