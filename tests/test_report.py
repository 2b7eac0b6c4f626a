"""Figures are real pictures that say what they must; a page stands alone and escapes its text."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.image import imread

from headsurgeon.heads import HeadId
from headsurgeon.report import (
    HeadView,
    MassPanel,
    head_map,
    mass_histogram,
    write_png,
)
from headsurgeon.report.style import png, spread
from tests.pictures import coloured

NOTE = "The collapse of this model was PLANTED."


def view(title: str = "before", layers: int = 2, heads: int = 3, slope: float = 0.5) -> HeadView:
    mass = np.full((layers, heads), 0.05)
    mass[1, 2] = 0.97
    verdicts = np.full((layers, heads), "healthy", dtype="U12")
    verdicts[1, 2], verdicts[0, 0] = "dead", "low-entropy"
    borderline = np.zeros((layers, heads), dtype=bool)
    borderline[1, 2] = True
    slopes = np.tile(slope ** np.arange(1.0, heads + 1.0), (layers, 1)) * (slope > 0)
    return HeadView(title, mass, verdicts, borderline, slopes, np.full((layers, heads), 0.03))


def texts(figure: Figure) -> str:
    return "\n".join(item.get_text() for item in figure.findobj(lambda o: hasattr(o, "get_text")))


def figures() -> dict[str, Figure]:
    mass = np.array([0.03, 0.9, 1.0])
    return {
        "head map": head_map([view(), view("after")], [HeadId(1, 2)], footnote=NOTE),
        "histogram": mass_histogram(
            [MassPanel.of(name, mass, np.full(3, 0.02)) for name in ("untouched", "surgery")],
            title="mass",
            footnote=NOTE,
        ),
    }


@pytest.mark.parametrize("name", ["head map", "histogram"])
def test_every_figure_is_a_png_with_its_data_in_colour_and_carries_its_footnote(
    name: str, tmp_path: Path
) -> None:
    figure = figures()[name]
    content = write_png(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes() == content
    pixels = imread(io.BytesIO(content), format="png")
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 400
    assert coloured(content) > 0.003
    assert NOTE in texts(figure).replace("\n", " ")


def test_axes_without_data_have_no_colour() -> None:
    blank = Figure()
    blank.subplots().set_title("nothing")
    assert coloured(png(blank)) == 0


def test_drawing_changes_no_global_setting() -> None:
    before = dict(rcParams)
    for figure in figures().values():
        png(figure)
    assert dict(rcParams) == before


def test_the_same_figure_gives_the_same_bytes() -> None:
    assert png(figures()["histogram"]) == png(figures()["histogram"])


def test_the_head_map_marks_verdicts_borderline_heads_and_slopes() -> None:
    found = texts(figures()["head map"])
    assert "D?" in found
    assert "\nE\n" in found
    assert "2\n.125" in found
    assert "ALiBi slope" in found


def test_the_head_map_of_a_model_without_position_bias_shows_no_slope() -> None:
    found = texts(head_map([view(slope=0.0)]))
    assert "slope" not in found
    assert "operated" not in found


@pytest.mark.parametrize(("layers", "heads"), [(2, 3), (30, 32)])
def test_outlines_are_exactly_the_operated_heads(layers: int, heads: int) -> None:
    operated = [HeadId(0, 1), HeadId(1, 2)]
    figure = head_map([view(layers=layers, heads=heads)], operated)
    boxes = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert [(box.get_x(), box.get_y()) for box in boxes] == [(0.56, -0.44), (1.56, 0.56)]


@pytest.mark.parametrize(
    ("null", "words"), [((0.02, 0.02), "0.020\n"), ((0.02, 0.05), "0.020–0.050\n")]
)
def test_the_histogram_shows_the_null(null: tuple[float, float], words: str) -> None:
    mass = np.array([0.1, 0.9])
    figure = mass_histogram([MassPanel.of("a", mass, np.array(null))], title="t")
    assert f"untrained heads: {words}" in f"{texts(figure)}\n"


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_labels_at_line_ends_never_cover_each_other(heights: list[float]) -> None:
    placed = spread(sorted(heights), 0.0, 1.0)
    assert all(b - a >= 0.0619 for a, b in pairwise(placed))
    assert min(placed) >= 0.0
    assert max(placed) <= 1.0 + 1e-9
