"""A page stands alone, shows everything it is given, escapes its text, and stays small."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from headsurgeon.errors import WriteError
from headsurgeon.heads import HeadId
from headsurgeon.report import Page, Section, Table, render, write_page
from headsurgeon.report.charts import interval_chart
from headsurgeon.report.data import Bar, KeyFigure
from headsurgeon.report.head_moments import HeadMoments, Moment
from headsurgeon.report.page_size import LARGE, SMALL
from headsurgeon.report.quantised import Packed, unpack

NOTE = "The collapse of this model was PLANTED."
NASTY = "</script><script>alert(1)</script>[bold]\x1b[31m\u202e"


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


def moments(
    layers: int = 2, heads: int = 3, count: int = 4, name: str = "surgery", seed: int = 0
) -> HeadMoments:
    rng = np.random.default_rng(seed)
    mass = np.clip(rng.normal(0.4, 0.3, (1, layers, heads)) + np.zeros((count, 1, 1)), 0, 1)
    mass = np.clip(mass + rng.normal(0, 0.02, (count, layers, heads)).cumsum(axis=0), 0, 1)
    slopes = np.tile(2.0 ** -np.arange(1.0, heads + 1.0), (layers, 1))
    return HeadMoments(
        name=name,
        about="dev windows",
        moments=(Moment("untouched"), *(Moment(f"step {n}", n) for n in range(count - 1))),
        values={"mass": mass, "entropy": 5 * (1 - mass), "distance": 100 * (1 - mass)},
        fixed={"slope": slopes, "null": np.full((layers, heads), 0.03)},
        operated=(HeadId(1, 2),),
        watched=(HeadId(0, 2),),
        cannot_change=np.arange(layers)[:, None] + np.zeros((1, heads)) < 1,
        recovered={"L1H2": "not recovered: it looks like a head that was not trained."},
    )


@pytest.mark.parametrize(
    ("name", "lines"), [("a − b", 1), ("canonical_then_full − untouched, unseen: better", 2)]
)
def test_a_name_that_leaves_no_room_for_its_figures_stands_above_them(
    name: str, lines: int
) -> None:
    chart = interval_chart("Bars", [Bar(name, "c0", -0.2, -0.3, -0.1)], NOTE)
    heights = re.findall(r'y="([\d.]+)" class="(?:end )?name"', chart.svg)
    assert len(heights) == 2
    assert len(set(heights)) == lines


def page(cell: str = "3.2", **changes: object) -> Page:
    table = Table("loss", "Losses", ("model", "nats"), (("untouched", cell),), note="per token")
    chart = interval_chart("Bars", [Bar("a − b", "c0", 0.1, -0.1, 0.3)], NOTE)
    section = Section("Result", ("What came out.",), (chart,), (table,), folded=True)
    shown = Page(
        "Surgery",
        ("It helped.",),
        (section,),
        notice=NOTE,
        figures=(KeyFigure("71 %", "recovered", "[65, 77]"),),
        heads=(moments(),),
        facts={"seed": "0"},
        command="headsurgeon demo",
    )
    return replace(shown, **changes)  # type: ignore[arg-type]


def data(html: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_the_page_shows_everything_it_is_given() -> None:
    reader = Reader(render(page()))
    for wanted in (
        *("Surgery", "It helped.", NOTE, "Result", "What came out.", "Losses", "nats", "Bars"),
        *("untouched", "3.2", "per token", "seed", "71 %", "[65, 77]", "headsurgeon demo"),
    ):
        assert wanted in reader.text


def test_the_page_fetches_nothing_and_has_no_style_or_script_but_its_own() -> None:
    html = render(page())
    reader = Reader(html)
    attributes = [name for _, found in reader.tags for name in found]
    assert not {"src", "style", "onclick", "onload"} & set(attributes)
    assert not re.search(r"@import|<link|url\(", html)
    assert [tag for tag, _ in reader.tags].count("script") == 2
    policy = next(found["content"] for _, found in reader.tags if "http-equiv" in found)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_script_is_short() -> None:
    script = Path(__file__).parents[1] / "src/headsurgeon/report/templates/page.js"
    text = script.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 300
    assert max(map(len, lines)) <= 180


def test_the_numbers_of_the_page_are_those_it_was_given() -> None:
    given = moments()
    (model,) = data(render(page()))["models"]  # type: ignore[misc]
    for name, values in given.values.items():
        stat = model["stats"][name]
        back = unpack(Packed(stat["low"], stat["step"], stat["text"]), len(given.moments))
        assert np.allclose(back, values.reshape(len(values), -1), atol=stat["step"] / 2 + 1e-9)
    assert model["operated"] == [5]
    assert model["fixed"] == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 12])
def test_a_large_model_with_many_snapshots_stays_within_the_budget(count: int) -> None:
    models = tuple(moments(24, 16, 100, f"model {n}", n) for n in range(count))
    html = render(page(heads=models))
    assert len(html.encode()) <= SMALL
    assert len(data(html)["models"]) == count  # type: ignore[arg-type]


def test_whatever_does_not_fit_is_left_out_and_said() -> None:
    rows = tuple((f"document {n}", "3.2" * 20) for n in range(20_000))
    long = Section("Documents", tables=(Table("d", "Documents", ("a", "b"), rows),))
    models = tuple(moments(80, 64, 60, f"model {n}", n) for n in range(6))
    html = render(page(heads=models, sections=(long,)))
    assert len(html.encode()) <= LARGE
    assert "more rows are in the files" in html
    assert "of 6 models" in html


def test_text_is_escaped_wherever_it_stands() -> None:
    nasty = replace(
        page(cell=NASTY),
        title=NASTY,
        lead=(NASTY,),
        notice=NASTY,
        facts={NASTY: NASTY},
        command=NASTY,
        figures=(KeyFigure(NASTY, NASTY, NASTY),),
        heads=(replace(moments(name=NASTY), about=NASTY, recovered={"L1H2": NASTY}),),
        sections=(
            Section(
                NASTY,
                (NASTY,),
                (interval_chart(NASTY, [Bar(NASTY, "c0", 0.0, -1.0, 1.0)], NASTY),),
                (Table("k", NASTY, (NASTY,), ((NASTY,),), NASTY),),
            ),
        ),
    )
    html = render(nasty)
    assert html.count("<script") == 2
    assert html.count("</script") == 2
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "<script>alert(1)</script>[bold]\\x1b[31m\\u202e" in Reader(html).text
    assert data(html)["models"]


def test_a_page_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="cannot write"):
        write_page(page(), tmp_path / "file" / "report.html")


def test_a_table_as_data_has_one_mapping_per_row() -> None:
    table = page().sections[0].tables[0]
    assert table.to_dict()["rows"] == [{"model": "untouched", "nats": "3.2"}]
    assert table.alignment == ("left", "right")
