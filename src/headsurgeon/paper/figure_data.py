"""Numbers read off the paper's figures, since it released none of its data.

Masses are good to ±0.005, changes to ±0.003 (a cell that did not change reads +0.002) and clipped
at ±0.4, so that of operated heads they have the sign alone; perplexities to ±0.02. Wherever one is
shown it says where it is from.
"""

import csv
from importlib.resources import files
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

READ_OFF = "read off the paper's figure"
# what a cell that did not change may read, fraction
READING_ERROR = 0.003
Run = Literal["curated", "wikipedia", "c4"]
Size = Literal["560m", "1b7", "3b", "7b1"]


def bloom_size(repository: str) -> Size | None:
    """Which of the BLOOMs that the paper shows a repository of the Hub is; None of any other."""
    sizes: dict[str, Size] = {f"bigscience/bloom-{size}": size for size in get_args(Size)}
    return sizes.get(repository)


def change_from_figure(run: Run) -> Float[np.ndarray, "layer head"]:
    """Signed change of first-token mass of BLOOM-1b7 at epoch 3, fraction, from figure 3."""
    return _rows(f"change_{run}_e3.csv")


def mass_from_figure(size: Size) -> Float[np.ndarray, "layer head"]:
    """First-token mass of a stock BLOOM, fraction, from figure 2; NaN below its panel's label."""
    return _rows(f"mass_{size}.csv")


def h5_curve_from_figure() -> Float[np.ndarray, " step"]:
    """Perplexity on 8 short texts after steps 0, 1, 2, … of the H5 run, from figure 5; one NaN."""
    return np.asarray(_rows("h5_curve.csv")[:, 1])


def _rows(name: str) -> np.ndarray:
    text = files("headsurgeon.paper").joinpath("figures", name).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return np.array([[float(cell) for cell in row] for row in csv.reader(lines)])
