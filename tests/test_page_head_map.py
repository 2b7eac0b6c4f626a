"""The head map without scripts says of every head what was measured, and escapes all text."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex

from headsurgeon.heads import NO_ATTENTION, HeadId
from headsurgeon.report.colours import DIVERGING, NOTHING, SEQUENTIAL, colour, ink_on
from headsurgeon.report.data import HeadView
from headsurgeon.report.head_map_svg import head_map_svg

SVG = "{http://www.w3.org/2000/svg}"


def view(title: str = "before") -> HeadView:
    mass = np.array([[0.05, 0.6, 0.97], [np.nan] * 3])
    verdicts = np.array([["healthy", "sink", "dead"], [NO_ATTENTION] * 3])
    borderline = np.array([[False, True, False], [False] * 3])
    slopes = np.tile([0.5, 0.25, 0.125], (2, 1))
    return HeadView(title, mass, verdicts, borderline, slopes, np.full((2, 3), 0.03))


def drawn(**told: object) -> ElementTree.Element:
    given = {"operated": (HeadId(0, 2),), "watched": (HeadId(0, 0),), **told}
    return ElementTree.fromstring(head_map_svg(given.pop("view", view()), **given))  # type: ignore[arg-type]


def test_every_head_says_its_numbers() -> None:
    titles = [title.text for title in drawn().iter(f"{SVG}title")]
    assert titles[0] == "L0H0: healthy, mass 0.050, null 0.030, slope 0.5"
    assert titles[1] == "L0H1: sink, borderline, mass 0.600, null 0.030, slope 0.25"
    assert titles[3:] == [f"L1H{head}: no attention in this layer" for head in range(3)]
    assert [text.text for text in drawn().iter(f"{SVG}text")].count("S?") == 1


def test_a_null_that_is_not_known_is_not_said() -> None:
    unknown = replace(view(), null_mass=np.full((2, 3), np.nan), slopes=np.zeros((2, 3)))
    titles = [title.text for title in drawn(view=unknown).iter(f"{SVG}title")]
    assert titles[0] == "L0H0: healthy, mass 0.050"


def test_outlines_tell_operated_from_watched_heads() -> None:
    lines = [path for path in drawn().iter(f"{SVG}path") if path.get("fill") == "none"]
    assert [line.get("stroke-dasharray") for line in lines] == ["3 2", None]
    assert not [p for p in drawn(operated=(), watched=()).iter() if p.get("fill") == "none"]


def test_without_titles_the_same_cells_take_a_fraction_of_the_room() -> None:
    fills = [path.get("fill") for path in drawn(titles=False).iter(f"{SVG}path")]
    assert fills == [path.get("fill") for path in drawn().iter(f"{SVG}path")]
    assert not list(drawn(titles=False).iter(f"{SVG}title"))


def test_a_title_is_text_whatever_it_holds() -> None:
    svg = head_map_svg(view('<script>"&\x1b[31m\u202e'))
    assert "<script" not in svg
    assert "\x1b" not in svg
    assert "\u202e" not in svg
    assert ElementTree.fromstring(svg).get("aria-label", "").startswith('<script>"&\\x1b[31m')


@pytest.mark.parametrize(("name", "stops"), [("magma_r", SEQUENTIAL), ("RdBu_r", DIVERGING)])
def test_the_scales_are_those_of_the_figures(name: str, stops: tuple[str, ...]) -> None:
    places = np.linspace(0.0, 1.0, len(stops))
    assert tuple(to_hex(colormaps[name](place)) for place in places) == stops
    assert [colour(float(place), stops) for place in places] == list(stops)


def test_colours_between_stops_are_mixed_and_nothing_is_grey() -> None:
    assert colour(0.5, ("#000000", "#ffffff")) == "#808080"
    assert colour(-1.0) == SEQUENTIAL[0]
    assert colour(2.0) == SEQUENTIAL[-1]
    assert colour(float("nan")) == NOTHING
    assert ink_on("#000000") == "#ffffff"
    assert ink_on("#ffffff") != "#ffffff"
