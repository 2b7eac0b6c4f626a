"""Results show themselves in a notebook: a head map and a table, escaped, without scripts."""

import ast
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import headsurgeon as hs
from headsurgeon.diagnosis import diagnose
from headsurgeon.heads import HeadId
from headsurgeon.planning.plan import PlannedHead
from headsurgeon.study.conclusion import conclude
from tests.head_stats import stats_of
from tests.study_files import finished_study
from tests.test_train_log import logged

HOSTILE = "<script>alert(1)</script>[bold]x\x1b[31m\u202e"
ROOT = Path(__file__).parents[1]


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        # as a text of its own kind, which no part of it escapes
        self.feed(str(html))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def shown(result: object) -> Tags:
    html = result._repr_html_()  # type: ignore[attr-defined]
    assert type(html).__name__ in ("Markup", "str")
    assert not [char for char in html if not char.isprintable()]
    ElementTree.fromstring(html)
    found = Tags(html)
    assert "script" not in found.tags
    assert {"div", "svg", "table"} <= found.tags
    return found


def diagnosis(model: str = "pico") -> hs.Diagnosis:
    mass = np.array([[[0.1, 0.97, 0.6], [0.2, 0.3, 0.4]]] * 3)
    found = diagnose(stats_of(mass), draws=20)
    source = found.stats.provenance.replace(model=model, corpus=model)
    return found.replace(stats=found.stats.replace(provenance=source))


def plan(model: str = "pico") -> hs.Plan:
    heads = (
        PlannedHead(
            id=HeadId(0, 1),
            verdict="dead",
            statistics={"first_token_mass": 0.97},
            ablation_cost=0.01,
        ),
        PlannedHead(id=HeadId(1, 2), role="watch"),
    )
    return hs.Plan(model=model, rule="sick", heads=heads)


def test_a_diagnosis_and_a_plan_are_a_map_and_a_table() -> None:
    said = shown(diagnosis()).text
    assert "2 of 6 heads sick" in said
    assert "L0H1: dead" in said
    said = shown(plan()).text
    assert "1 heads to operate on, rule sick" in said
    for cell in ("L0H1", "watch", "0.970", "+0.0100"):
        assert cell in said


def test_what_others_named_is_escaped() -> None:
    for result in (diagnosis(HOSTILE), plan(HOSTILE)):
        said = shown(result).text
        assert "<script>alert(1)</script>[bold]x\\x1b[31m\\u202e" in said


def test_what_was_planted_is_said() -> None:
    for result in (diagnosis("zoo:bloom-mini-collapsed"), plan("zoo:bloom-mini-collapsed")):
        assert "PLANTED" in shown(result).text
    assert "PLANTED" not in shown(diagnosis("zoo:bloom-mini")).text


def test_a_run_shows_its_heads_and_without_its_folder_its_figures(tmp_path: Path) -> None:
    run = logged(tmp_path / "run")
    said = shown(run).text
    for part in ("heads at its last evaluation", "tokens", f"at step {run.best_step}"):
        assert part in said
    gone = run.replace(folder=tmp_path / "gone")
    html = gone._repr_html_()
    assert "<svg" not in html
    assert f"{run.best_dev_loss:.4f}" in html


def test_a_study_shows_its_decisions(tmp_path: Path) -> None:
    said = shown(conclude(finished_study(tmp_path))).text
    assert "harms" in said
    assert "untouched model" in said


def test_a_notebook_asks_in_vain_of_results_without_a_picture() -> None:
    assert not hasattr(hs.Thresholds(), "_repr_html_")


# --- the example ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cells in one namespace: what a kernel does, but for its displays, without a kernel."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "docs/notebooks/twins.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    namespace: dict[str, object] = {"__name__": "__main__"}
    pictures = 0
    for number, source in enumerate(code):
        parsed = ast.parse(source, f"cell {number}")
        last = parsed.body.pop() if isinstance(parsed.body[-1], ast.Expr) else None
        exec(compile(parsed, f"cell {number}", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), namespace)
            if hasattr(value, "_repr_html_"):
                assert "<svg" in value._repr_html_()
                pictures += 1
    assert pictures >= 3


def test_the_example_notebook_is_a_notebook_and_shows_what_it_found() -> None:
    content = json.loads((ROOT / "docs/notebooks/twins.ipynb").read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    names = [cell["id"] for cell in content["cells"]]
    assert len(set(names)) == len(names)
    text = json.dumps(content)
    assert "PLANTED" in text
    assert not re.search(r"/(home|tmp|work|root)/", text)
    assert "<script" not in text
