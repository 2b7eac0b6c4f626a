"""`--tensorboard`: what runs log, as event files beside them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headsurgeon.report.tracking import Relay, TensorBoard

Wanted = Annotated[
    bool,
    typer.Option(
        "--tensorboard",
        help="Write losses, drift and head maps to tensorboard/ in the folder, for TensorBoard.",
    ),
]


def check_tensorboard(wanted: bool) -> None:
    """Names the package that is missing, before anything is loaded.

    Raises:
        MissingPackage: it is wanted and not installed.
    """
    if wanted:
        from headsurgeon.extras import require

        require("tensorboardX", "--tensorboard")


@contextmanager
def relaying(run: Path, wanted: bool) -> Iterator[Callable[[], None]]:
    """Yields a function that sends on what the run in a folder has logged since.

    Event files are begun with the first line of the log: before there is one, the folder is not
    ours to write to.
    """
    begun: list[tuple[Relay, TensorBoard]] = []

    def send() -> None:
        from headsurgeon.report.tracking import TENSORBOARD, Relay, TensorBoard
        from headsurgeon.training.run_file import LOG_NAME

        if not wanted or not (run / LOG_NAME).is_file():
            return
        if not begun:
            sink = TensorBoard(run / TENSORBOARD)
            begun.append((Relay(run, sink), sink))
        begun[0][0].send()

    try:
        yield send
    finally:
        send()
        for _, sink in begun:
            sink.close()


def send_runs(folder: Path, runs: Iterable[Path]) -> None:
    """Writes event files of several runs below `folder`, each as a run of its own."""
    from headsurgeon.report.tracking import TENSORBOARD, TensorBoard, send_log
    from headsurgeon.training.run_file import LOG_NAME

    for run in runs:
        if (run / LOG_NAME).is_file():
            send_log(run, TensorBoard(folder / TENSORBOARD / run.name))
