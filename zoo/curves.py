"""The picture of a pair's training: loss of both, and the mass of the planted heads."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from recipe import Recipe

from headsurgeon.files import replacing

matplotlib.use("Agg")
import matplotlib.pyplot as plot

COLOURS = {"healthy": "#2a7f62", "collapsed": "#b3402e"}


def draw(runs: Mapping[str, Path], recipe: Recipe, path: Path) -> None:
    """Draws loss and planted mass over steps into a PNG.

    Args:
        runs: folder of each run, by `healthy` and `collapsed`.
        recipe: says when planting ended and which heads were planted.
        path: the PNG to write.
    """
    figure, (above, below) = plot.subplots(2, 1, figsize=(7, 5.5), sharex=True, dpi=110)
    for name, run in runs.items():
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        steps = [entry["step"] for entry in log]
        above.plot(steps, [entry["dev_loss"] for entry in log], color=COLOURS[name], label=name)
        masses = [_planted(entry, recipe) for entry in log]
        below.plot(steps, [m.mean() for m in masses], color=COLOURS[name], label=f"{name}, mean")
        low, high = [m.min() for m in masses], [m.max() for m in masses]
        below.fill_between(steps, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
    for axes in (above, below):
        axes.axvspan(0, recipe.planting_steps, color="0.92", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    above.set_ylabel("loss on dev text, nats per token")
    above.legend(frameon=False)
    above.set_title("PLANTED collapse: extra loss in the grey part, for the collapsed twin only")
    below.set_ylabel("first-token mass\nof the planted heads")
    below.set_ylim(0, 1.02)
    below.set_xlabel("step")
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
    plot.close(figure)


def _planted(entry: Mapping[str, Any], recipe: Recipe) -> np.ndarray:
    mass = np.array(entry["mass"])
    return mass[np.ix_(recipe.planted_layers, recipe.planted_heads)].ravel()
