"""Figures are real pictures that say what they must; a page stands alone and escapes its text."""

import io
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.image import imread

from headsurgeon.errors import WriteError
from headsurgeon.heads import HeadId
from headsurgeon.report import (
    Bar,
    Curve,
    HeadView,
    MassPanel,
    Page,
    Picture,
    Section,
    Table,
    head_map,
    interval_bars,
    loss_curves,
    mass_histogram,
    render,
    write_page,
    write_png,
)
from headsurgeon.report.figures import spread
from headsurgeon.report.style import png
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
        "curves": loss_curves(
            [Curve("surgery", "surgery", (0, 10), (3.0, 2.0)), Curve("x", "new", (0,), (1.0,))],
            level=("untouched", 2.5),
            title="loss",
            footnote=NOTE,
        ),
        "bars": interval_bars(
            [Bar("surgery", "surgery", 0.4, 0.3, 0.5), Bar("none", "x", *[math.nan] * 3)],
            axis="share",
            references=((0.0, "untouched"), (1.0, "ceiling")),
            percent=True,
            title="share",
            footnote=NOTE,
        ),
    }


@pytest.mark.parametrize("name", ["head map", "histogram", "curves", "bars"])
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
    assert png(figures()["bars"]) == png(figures()["bars"])


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


def test_a_bar_without_a_value_says_undefined_and_one_without_interval_draws_no_whisker() -> None:
    assert "undefined" in texts(figures()["bars"])
    lone = interval_bars([Bar("a", "x", -0.5, math.nan, math.nan)], axis="change", title="t")
    assert "−0.5000" in texts(lone)
    assert "[" not in texts(lone)
    png(lone)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_labels_at_line_ends_never_cover_each_other(heights: list[float]) -> None:
    placed = spread(sorted(heights), 0.0, 1.0)
    assert all(b - a >= 0.0619 for a, b in pairwise(placed))
    assert min(placed) >= 0.0
    assert max(placed) <= 1.0 + 1e-9


class Reader(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(cell: str = "3.2") -> Page:
    table = Table("loss", "Losses", ("model", "nats"), (("untouched", cell),), note="per token")
    picture = Picture(png(figures()["bars"]), NOTE)
    section = Section("Result", ("What came out.",), (table,), (picture,), folded=True)
    return Page("Surgery", ("It helped.",), (section,), notice=NOTE, facts={"seed": "0"})


def test_the_page_shows_everything_it_is_given() -> None:
    reader = Reader(render(page()))
    for wanted in ("Surgery", "It helped.", NOTE, "Result", "What came out.", "Losses", "nats"):
        assert wanted in reader.text
    for wanted in ("untouched", "3.2", "per token", "seed"):
        assert wanted in reader.text
    assert [tag for tag, _ in reader.tags if tag in ("table", "th", "td")] == [
        "table",
        *["th"] * 3,
        "td",
    ]


def test_the_page_fetches_nothing() -> None:
    html = render(page())
    sources = [attributes.get("src") or "" for _, attributes in Reader(html).tags]
    assert all(source.startswith("data:image/png;base64,") for source in sources if source)
    assert not re.search(r"https?://|<script|@import|<link", html)


def test_pictures_have_a_text_for_those_who_cannot_see_them() -> None:
    images = [attributes for tag, attributes in Reader(render(page())).tags if tag == "img"]
    assert [image["alt"] for image in images] == [NOTE]


def test_text_is_escaped() -> None:
    html = render(page(cell="<script>alert(1)</script>"))
    assert "<script>" not in html
    assert "<script>alert(1)</script>" in Reader(html).text


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="cannot write"):
        write_page(page(), tmp_path / "file" / "summary.html")


def test_a_table_as_data_has_one_mapping_per_row() -> None:
    table = page().sections[0].tables[0]
    assert table.to_dict()["rows"] == [{"model": "untouched", "nats": "3.2"}]
    assert table.alignment == ("left", "right")
