"""`diagnose` with several models: one table, one figure, and a folder for each."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import Result

from headsurgeon.cli.compare import comparison_figure, comparison_table, folder_names, summary
from headsurgeon.diagnosis import Diagnosis
from tests.clinic import PLANTED, READING, checkpoint, run, sick_bloom, write_text
from tests.pico_families import pico_family


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("compare")
    checkpoint(folder / "sick", sick_bloom())
    checkpoint(folder / "llama", pico_family("llama"))
    write_text(folder / "docs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def compared(clinic: Path) -> Result:
    result = run("diagnose", "sick", "llama", *READING, "--output", "both")
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture
def sick(clinic: Path, compared: Result) -> Diagnosis:
    return Diagnosis.load(clinic / "both" / "sick" / "diagnosis.json")


def named(diagnosis: Diagnosis, model: str) -> Diagnosis:
    """The same figures under another model's name."""
    source = diagnosis.stats.provenance.replace(model=model)
    return diagnosis.replace(stats=diagnosis.stats.replace(provenance=source))


def shown(*diagnoses: Diagnosis) -> str:
    console = Console(width=160, record=True, quiet=False)
    with console.capture() as captured:
        console.print(comparison_table(diagnoses))
    return captured.get()


def test_the_comparison_holds_both_models_of_different_shapes(
    clinic: Path, compared: Result
) -> None:
    content = json.loads((clinic / "both" / "comparison.json").read_text())
    first, second = content["models"]
    assert (first["model"], second["model"]) == ("sick", "llama")
    assert (first["layers"], first["heads"], second["layers"], second["heads"]) == (3, 12, 2, 8)
    assert first["sick"] == len(PLANTED)
    assert first["sick_share"] == pytest.approx(2 / 12)
    assert first["layers_affected_per_head"] == [0, 0, 1, 1]
    assert first["band"]["name"] == "heads 2–3, layers 1–1"
    assert first["mass_slope_correlation"] < 0
    assert second["mass_slope_correlation"] is None
    assert first["published"] is None
    assert (clinic / "both" / "maps.png").read_bytes().startswith(b"\x89PNG")


def test_each_model_has_the_folder_that_it_would_have_alone(clinic: Path, compared: Result) -> None:
    alone = run("diagnose", "sick", *READING, "--output", "alone")
    assert alone.exit_code == 0, alone.stderr
    found, expected = clinic / "both" / "sick", clinic / "alone"
    assert sorted(path.name for path in found.iterdir()) == sorted(
        path.name for path in expected.iterdir()
    )
    assert (found / "heads.csv").read_bytes() == (expected / "heads.csv").read_bytes()
    assert "next: headsurgeon plan" in alone.stdout


def test_the_table_says_what_was_measured_and_nothing_of_the_paper(compared: Result) -> None:
    for text in ("16.7 % (2)", "10 / 0 / 2 / 0", "heads 2–3, layers 1–1", "H2: 1 of 3", "null"):
        assert text in compared.stdout
    assert "reported" not in compared.stdout
    assert "written to both: comparison.json, llama, maps.png, sick" in compared.stdout


def test_published_figures_stand_below_the_measured_ones(sick: Diagnosis) -> None:
    big, small = named(sick, "bigscience/bloom-1b7"), named(sick, "bigscience/bloom-560m")
    text = shown(big, small, sick)
    for reported in ("36.0 %", "44.0 %", "242 / 136 / 3 / 3", "heads 9–15"):
        assert reported in text
    assert "reported" not in shown(sick)
    assert summary(big)["published"]["sick_share"] == 0.36
    figure = comparison_figure([big, sick])
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles[0].splitlines()[1:] == [
        "16.7 % sick, heads 2–3, layers 1–1",
        "reported: 36.0 %, heads 9–15",
    ]
    assert "reported" not in titles[1]


def test_a_planted_collapse_is_called_so(sick: Diagnosis) -> None:
    twin = named(sick, "zoo:bloom-mini-collapsed")
    assert summary(twin)["planted"]
    figure = comparison_figure([twin, sick])
    words = [item.get_text() for item in figure.findobj(lambda o: hasattr(o, "get_text"))]
    assert "PLANTED" in " ".join(words)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("sick", "llama", "sick"), "sick: named more than once"),
        (("sick", "docs"), "no config.json"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_measured(
    clinic: Path, arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headsurgeon.cli.examining.open_model", lambda *given, **named: 1 / 0)
    said = run("diagnose", *arguments, *READING, "--output", "new")
    assert said.exit_code == 2
    assert says in said.stderr
    assert said.stdout == ""
    assert not (clinic / "new").exists()


def test_a_folder_with_something_else_is_left_alone(clinic: Path) -> None:
    said = run("diagnose", "sick", "llama", *READING, "--output", "docs")
    assert said.exit_code == 2
    assert "no comparison.json" in said.stderr


def test_every_model_gets_a_folder_of_its_own() -> None:
    specs = ["a/b", "a:b", "./a/b", "..", "zoo:bloom-mini"]
    names = folder_names(specs)
    assert names[0] == "a-b"
    assert names[-1] == "zoo-bloom-mini"
    assert len(set(names)) == len(specs)
    assert all(name.strip(".") and "/" not in name for name in names)
