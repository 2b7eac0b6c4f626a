"""`diagnose` with several models: one table, one figure, and a folder for each."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import Result

import headsurgeon as hs
from headsurgeon.cli.compare import comparison_figure, reported_of, summary
from headsurgeon.cli.compare_table import comparison_table
from headsurgeon.cli.examining import Examined
from headsurgeon.cli.given_models import folder_names
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.diagnosis.band import code_band
from headsurgeon.paper import mass_from_figure
from tests.clinic import PLANTED, READING, checkpoint, examined, run, sick_bloom, write_text
from tests.pico import pico
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
def sick(clinic: Path, compared: Result) -> Examined:
    return examined(Diagnosis.load(clinic / "both" / "sick" / "diagnosis.json"))


def named(found: Examined, model: str) -> Examined:
    """The same figures under another model's name."""
    diagnosis = found.diagnosis
    source = diagnosis.stats.provenance.replace(model=model)
    stats = diagnosis.stats.replace(provenance=source)
    return replace(found, diagnosis=diagnosis.replace(stats=stats))


def shown(*found: Examined) -> str:
    console = Console(width=160, record=True, quiet=False)
    lines = [summary(each) for each in found]
    with console.capture() as captured:
        console.print(comparison_table(lines, [reported_of(line["model"]) for line in lines]))
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
    assert first["sick_heads_per_layer"] == [0, 2, 0]
    assert first["band_by_the_papers_code"] == [2, 3]
    assert first["mlp_dormancy"] == pytest.approx([0.0] * 3)
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


def test_published_figures_stand_below_the_measured_ones(sick: Examined) -> None:
    big, small = named(sick, "bigscience/bloom-1b7"), named(sick, "bigscience/bloom-560m")
    text = shown(big, small, sick)
    for reported in (
        *("36.0 % (139)", "44.0 % (169)", "242 / 136 / 3 / 3", "heads 9–15", "8.8 %"),
        *("reported, chosen by hand", "by the rule of the paper's code"),
    ):
        assert reported in text
    assert "reported" not in shown(sick)
    assert summary(big)["published"]["sick_share"] == 0.36
    figure = comparison_figure([big, sick])
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.images]
    assert titles[0].splitlines()[1:] == [
        "16.7 % sick (2/12), heads 2–3, layers 1–1",
        "reported: 36.0 % (139/12), heads 9–15",
    ]
    assert "reported" not in titles[1]


def test_parameters_and_held_out_loss_are_those_of_each_model(
    clinic: Path, compared: Result
) -> None:
    content = json.loads((clinic / "both" / "comparison.json").read_text())
    for line in content["models"]:
        model, tokenizer = hs.load(line["model"])
        assert line["parameters"] == sum(part.numel() for part in model.parameters())
        source = line["provenance"]
        windows = hs.windows(source["corpus"], tokenizer, split="dev", length=32, count=24)
        loss = hs.evaluate(model, windows)
        assert line["held_out"]["loss"] == pytest.approx(loss.nll, abs=1e-9)
        assert line["held_out"]["low"] < loss.nll < line["held_out"]["high"]
        assert line["held_out"]["tokens"] == 24 * 31
        assert f"{loss.nll:.4f}" in compared.stdout
    assert "own tokenizer" not in compared.stdout


def test_models_beyond_memory_are_compared_the_same(clinic: Path, compared: Result) -> None:
    """A layer at a time from the disk; the figures are those of the whole model."""
    limit = ("--max-memory", "70KB")
    said = run("diagnose", "sick", "llama", *READING, *limit, "--output", "limited")
    assert said.exit_code == 0, said.stderr
    whole, limited = (clinic / name / "comparison.json" for name in ("both", "limited"))
    assert json.loads(limited.read_text()) == json.loads(whole.read_text())


@pytest.mark.slow
def test_four_sizes_of_one_family_stand_side_by_side(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many layers and heads as the paper's four models, and their names, from a faked cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    shapes = {"560m": (24, 16), "1b7": (24, 16), "3b": (30, 32), "7b1": (30, 32)}
    for size, (layers, heads) in shapes.items():
        place = tmp_path / f"models--bigscience--bloom-{size}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text("0" * 40)
        model = pico("bloom", layers=layers, heads=heads, hidden=2 * heads)
        checkpoint(place / "snapshots" / ("0" * 40), model)
    names = [f"bigscience/bloom-{size}" for size in shapes]
    few = ("--corpus", "text:docs/*.txt", "--length", "16", "--count", "4")
    said = run("diagnose", *names, *few, "--output", tmp_path / "sizes")
    assert said.exit_code == 0, said.stderr
    content = json.loads((tmp_path / "sizes" / "comparison.json").read_text())
    assert [line["heads"] for line in content["models"]] == [384, 384, 960, 960]
    reported = [line["published"]["sick_heads"] for line in content["models"]]
    assert reported == [169, 139, 365, 296]
    bands = [line["published"]["band"] for line in content["models"]]
    assert bands == ["heads 9–15", "heads 9–15", "heads 20–30 of 32", "heads 21–30 of 32"]


def test_the_papers_figures_stand_beside_any_revision_and_no_subfolder(sick: Examined) -> None:
    assert reported_of("bigscience/bloom-1b7@main") == reported_of("bigscience/bloom-1b7")
    assert reported_of("bigscience/bloom-1b7@main/step1") is None
    assert reported_of("zoo:bloom-mini") is None


def test_the_papers_rule_takes_first_and_last_index_sick_in_over_30_percent_of_layers() -> None:
    sick = np.zeros((10, 6), dtype=bool)
    assert code_band(sick) is None
    sick[:4, 1] = sick[:3, 2] = sick[:9, 4] = True
    # 40, 30 and 90 % of the layers
    assert code_band(sick) == (1, 4)
    sick[3, 1] = False
    assert code_band(sick) == (4, 4)


@pytest.mark.parametrize(
    ("size", "band"), [("560m", (2, 15)), ("1b7", (3, 15)), ("3b", (16, 31)), ("7b1", (16, 31))]
)
def test_the_papers_rule_on_its_own_figure_gives_wider_bands_than_it_reports(
    size: str, band: tuple[int, int]
) -> None:
    assert code_band(mass_from_figure(size) > 0.5) == band


def test_layer_0_is_at_the_bottom_and_the_limit_is_marked(sick: Examined) -> None:
    figure = comparison_figure([sick, sick])
    maps = [axes for axes in figure.axes if axes.images]
    assert all(axes.get_ylim()[0] < axes.get_ylim()[1] for axes in maps)
    [scale] = [axes for axes in figure.axes if not axes.images]
    assert "sick" in [label.get_text() for label in scale.get_yticklabels()]


def test_a_planted_collapse_is_called_so(sick: Examined) -> None:
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
