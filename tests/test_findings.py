"""The tables of the findings are those of the committed results."""

import runpy
from pathlib import Path

import pytest

from headsurgeon.study import Study
from headsurgeon.study.keys import key_of
from headsurgeon.study.results import CELL, PREPARED, STUDY, Cell, CellResult, Prepared
from tests.documented import ROOT

PAGE, SCRIPT = ROOT / "docs" / "findings.md", ROOT / "docs" / "findings_tables.py"
RESULTS = ROOT / "docs" / "results"
SCRIPTED = runpy.run_path(str(SCRIPT))
with_tables, tables_of = SCRIPTED["with_tables"], SCRIPTED["tables_of"]


def test_every_table_is_what_its_results_say() -> None:
    text = PAGE.read_text("utf-8")
    assert text.count("\n<!-- ") >= 3
    assert with_tables(text, RESULTS) == text, (
        "the tables of docs/findings.md are not those of docs/results: run docs/findings_tables.py"
    )


def test_a_figure_that_was_typed_by_hand_is_written_over(tmp_path: Path) -> None:
    page = "before\n\n<!-- twins-quick/decisions -->\n\n| improves | code | −0.9 |\n\nafter\n"
    right = with_tables(page, RESULTS)
    assert right.startswith("before\n\n<!-- ")
    assert right.endswith(" |\n\nafter\n")
    assert "−0.9 " not in right
    assert with_tables(right, RESULTS) == right


def test_a_table_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        with_tables("<!-- twins-quick/nothing -->\n\n", RESULTS)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/demo.md"])
def test_the_shares_of_the_demo_are_the_same_wherever_they_are_told(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    shares = {
        row[0]: row[2].partition(" [")[0]
        for row in tables_of(RESULTS / "twins-quick")["shares"].rows
    }
    assert f"won back {shares['recommended']} of what the collapse cost" in " ".join(text.split())
    assert page == "docs/index.md" or shares["paper"] in text


@pytest.mark.parametrize(
    "folder", sorted(path.parent.name for path in RESULTS.glob("*/prepared.json"))
)
def test_a_study_of_today_knows_the_committed_cells_as_its_own(folder: str) -> None:
    """So a setting or a field that is added, at its default, asks for nothing to be run again."""
    place = RESULTS / folder
    study, prepared = Study.load(place / STUDY), Prepared.load(place / PREPARED)
    cells = sorted(place.glob(f"cells/*/{CELL}"))
    assert cells
    for path in cells:
        found = CellResult.load(path)
        cell = Cell(found.arm, found.text, found.seed)
        assert key_of(study, prepared, cell) == found.key, cell
