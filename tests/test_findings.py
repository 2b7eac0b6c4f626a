"""The tables of the findings are those of the committed results."""

import runpy
from pathlib import Path

import pytest

from tests.documented import ROOT

PAGE, SCRIPT = ROOT / "docs" / "findings.md", ROOT / "docs" / "findings_tables.py"
with_tables = runpy.run_path(str(SCRIPT))["with_tables"]


def test_every_table_is_what_its_results_say() -> None:
    text = PAGE.read_text("utf-8")
    assert text.count("\n<!-- ") >= 3
    assert with_tables(text, ROOT / "docs" / "results") == text, (
        "the tables of docs/findings.md are not those of docs/results: run docs/findings_tables.py"
    )


def test_a_figure_that_was_typed_by_hand_is_written_over(tmp_path: Path) -> None:
    results = ROOT / "docs" / "results"
    page = "before\n\n<!-- twins-quick/decisions -->\n\n| improves | code | −0.9 |\n\nafter\n"
    right = with_tables(page, results)
    assert right.startswith("before\n\n<!-- ")
    assert right.endswith(" |\n\nafter\n")
    assert "−0.9 " not in right
    assert with_tables(right, results) == right


def test_a_table_that_there_is_not_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        with_tables("<!-- twins-quick/nothing -->\n\n", ROOT / "docs" / "results")
