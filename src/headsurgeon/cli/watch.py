"""`headsurgeon watch`: a run, passes or a study while it is running, in another terminal."""

import math
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from headsurgeon.cli.console import facts, heading, out, table
from headsurgeon.cli.head_map import HeadMap
from headsurgeon.cli.progress import duration
from headsurgeon.printable import encodable, printable

if TYPE_CHECKING:
    import numpy as np

    from headsurgeon.report.live import RunState, Standing

_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_WIDTH = 48
# further cells are summed up
_ROWS = 24
_SIGNS = {"waiting": "·", "running": "→", "done": "✓", "failed": "x"}


def watch(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, of passes, or of a study.")
    ],
    once: Annotated[bool, typer.Option("--once", help="Show how it stands now, and end.")] = False,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How often to look.")
    ] = 2.0,
) -> None:
    """Shows how a run or a study stands: curves, head map, decisions so far, time left.

    Reads the log and the cells' files alone, so it may run anywhere that sees the folder, and
    changes nothing. Ends with the run, or with Ctrl-C, which leaves the run alone.
    """
    from headsurgeon.report.live import Watcher

    watcher, console = Watcher(folder), out()
    standing = watcher.look()
    if once or not console.is_terminal:
        console.print(frame(standing, console.encoding))
        return
    try:
        with Live(
            frame(standing, console.encoding),
            console=console,
            auto_refresh=False,
            vertical_overflow="crop",
        ) as live:
            while not standing.ended:
                time.sleep(every)
                standing = watcher.look()
                live.update(frame(standing, console.encoding), refresh=True)
    except KeyboardInterrupt:
        console.print("no longer watching; the run itself continues")


def frame(standing: "Standing", encoding: str = "utf-8") -> RenderableType:
    """One picture of how it stands."""
    return Group(*_parts(standing, encoding))


def _parts(standing: "Standing", encoding: str) -> Iterator[RenderableType]:
    yield heading(standing.name)
    yield facts(_overview(standing))
    if len(standing.runs) > 1:
        yield Text()
        yield _cells(standing.runs)
    run = standing.shown
    if run is not None:
        yield Text()
        yield heading(f"{run.name}, step {run.step}")
        yield facts(_losses(run, encoding))
        if run.mass is not None and run.verdicts is not None:
            yield Text()
            yield _map(run.mass, run.verdicts)
    if standing.decisions:
        yield Text()
        words = "decisions" if standing.ended else "decisions so far; they change with every cell"
        yield heading(words)
        yield from (Text(printable(each)) for each in _decided(standing))


def _map(mass: "np.ndarray", verdicts: "np.ndarray") -> HeadMap:
    import numpy as np

    # the log has means alone: no intervals, and no slopes
    return HeadMap(mass, verdicts, np.zeros(mass.shape, dtype=bool), np.zeros(mass.shape[1]))


def _overview(standing: "Standing") -> dict[str, str]:
    from headsurgeon.report.live import QUIET

    counts = {state: sum(run.state == state for run in standing.runs) for state in _SIGNS}
    said = {"state": ", ".join(f"{count} {state}" for state, count in counts.items() if count)}
    if not standing.ended:
        left = standing.seconds_left
        said["time left"] = "not known yet" if math.isnan(left) else f"about {duration(left)}"
    silent = [run for run in standing.runs if run.state == "running" and run.quiet > QUIET]
    if silent:
        names = ", ".join(f"{run.name} ({duration(run.quiet)})" for run in silent)
        said["quiet"] = f"{names}: stopped, or at a long evaluation; the same command resumes"
    return said


def _cells(runs: Sequence["RunState"]) -> RenderableType:
    """A row for each; of many those that wait or are done are summed up."""
    shown = list(runs)
    if len(shown) > _ROWS:
        # what runs and what failed first, then what was done
        order = {"running": 0, "failed": 1, "done": 2, "waiting": 3}
        shown = sorted(shown, key=lambda run: order[run.state])[:_ROWS]
    rows = [
        (
            run.name,
            f"{_SIGNS[run.state]} {run.state}",
            f"{run.step}/{run.steps}" if run.steps else "–",
            f"{run.dev[-1][1]:.4f}" if run.dev else "–",
            f"{min(loss for _, loss in run.dev):.4f}" if run.dev else "–",
            duration(run.seconds_left) if run.seconds_left > 0.0 else "",
        )
        for run in shown
    ]
    found = table(("run", "state", "step", "dev loss", "lowest", "left"), rows)
    reasons = [Text(printable(f"{r.name}: {r.failure}"), style="red") for r in runs if r.failure]
    more = len(runs) - len(shown)
    further = [Text(f"and {more} more", style="dim")] if more else []
    return Group(found, *further, *reasons)


def _losses(run: "RunState", encoding: str) -> dict[str, str]:
    said = {}
    if run.steps:
        said["progress"] = f"{run.step} of {run.steps} steps ({100 * run.step / run.steps:.0f} %)"
    if run.train:
        said["loss"] = f"{curve(run.train, encoding)} {run.train[-1]:.4f}"
    losses = [loss for _, loss in run.dev]
    best = min(run.dev, key=lambda point: point[1])
    said["dev loss"] = f"{curve(losses, encoding)} {losses[-1]:.4f}"
    said["lowest"] = f"{best[1]:.4f} at step {best[0]}"
    if not math.isnan(run.untouched):
        change = f"{best[1] - run.untouched:+.4f}".replace("-", "−")
        said["untouched"] = f"{run.untouched:.4f}; the lowest is {change} from it"
    return said


def curve(values: Sequence[float], encoding: str = "utf-8") -> str:
    """Values as a row of bars, the lowest flat; of many, the mean of each stretch."""
    bars = _BARS if encodable(_BARS, encoding) == _BARS else _PLAIN_BARS
    count = min(_WIDTH, len(values))
    edges = [round(index * len(values) / count) for index in range(count + 1)]
    means = [sum(values[first:last]) / (last - first) for first, last in pairwise(edges)]
    low, high = min(means), max(means)
    span = high - low or 1.0
    return "".join(bars[round((len(bars) - 1) * (mean - low) / span)] for mean in means)


def _decided(standing: "Standing") -> list[str]:
    from headsurgeon.report.wording import sentence

    return [sentence(each) for each in standing.decisions]
