"""`diagnose --series`: checkpoints of one run, as curves of their heads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel
from typer.testing import Result

import headsurgeon as hs
from headsurgeon.diagnosis.crossings import COLLAPSED
from headsurgeon.diagnosis.series import HeadSeries, SeriesPoint
from headsurgeon.errors import ModelError, SettingsError
from headsurgeon.models.checkpoints import checkpoints_of, steps_in
from headsurgeon.report.series_figure import series_figure
from tests.char_tokenizer import char_tokenizer
from tests.clinic import PLANTED, READING, checkpoint, run, sick_bloom, write_text
from tests.pico import pico
from tests.pico_families import pico_family


def between(share: float) -> PreTrainedModel:
    """A pico BLOOM on the way from a healthy one to a sick one."""
    healthy, sick = pico("bloom"), sick_bloom()
    with torch.no_grad():
        for one, other in zip(healthy.parameters(), sick.parameters(), strict=True):
            one.lerp_(other, share)
    return healthy


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("series")
    # as a number 5 comes before 10, as a text after it
    for step, share in ((5, 0.0), (10, 0.4), (20, 1.0), (30, 0.0)):
        checkpoint(folder / "out" / f"checkpoint-{step}", between(share))
    # what a Trainer saves at the end is no checkpoint
    checkpoint(folder / "out", between(0.0))
    checkpoint(folder / "llama", pico_family("llama"))
    write_text(folder / "docs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def followed(clinic: Path) -> Result:
    said = run("diagnose", "out", "--series", *READING, "--output", "found")
    assert said.exit_code == 0, said.stderr
    return said


def test_a_trainers_output_folder_gives_the_curves_of_its_checkpoints(
    clinic: Path, followed: Result
) -> None:
    series = hs.HeadSeries.load("found/series.jsonl")
    assert series.steps == (5, 10, 20, 30)
    assert [point.label for point in series.points][:2] == ["checkpoint-5", "checkpoint-10"]
    for point in series.points:
        alone = hs.Diagnosis.load(f"found/{point.label}/diagnosis.json")
        np.testing.assert_allclose(point.mass, alone.stats.first_token_mass, atol=1e-5)
        np.testing.assert_allclose(point.low, alone.mass_low, atol=1e-5)
    collapsed = [each for each in series.crossings if each.kind == COLLAPSED]
    assert {str(each.head) for each in collapsed} == set(PLANTED)
    assert {series.steps[each.measured] for each in collapsed} <= {10, 20}
    assert {str(each.head) for each in series.crossings if each.kind != COLLAPSED} == set(PLANTED)


def test_the_table_has_a_row_for_each_and_names_who_crossed(clinic: Path, followed: Result) -> None:
    rows = {line.split()[0]: line for line in followed.stdout.splitlines() if line.strip()}
    assert rows["checkpoint-5"].split()[1] == "0"
    assert rows["checkpoint-20"].split()[1] == "2"
    assert "L1H2, L1H3" in followed.stdout
    assert "no sick head" in rows["at"]
    assert "written to found: series.jsonl, series.png, checkpoint-5" in followed.stdout
    assert Path("found/series.png").read_bytes().startswith(b"\x89PNG")


def test_a_series_is_replaced_by_the_next_and_a_comparison_is_not(
    clinic: Path, followed: Result
) -> None:
    before = Path("found/series.jsonl").read_bytes()
    again = run("diagnose", "out", "--series", *READING, "--output", "found")
    assert again.exit_code == 0, again.stderr
    assert Path("found/series.jsonl").read_bytes() == before
    said = run("diagnose", "out/checkpoint-5", "llama", *READING, "--output", "found")
    assert said.exit_code == 2
    assert "no comparison.json" in said.stderr


def test_revisions_of_one_model_are_a_series(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "models--someone--pico"
    (place / "refs").mkdir(parents=True)
    for number, (revision, share) in enumerate({"step200": 1.0, "step100": 0.0}.items()):
        (place / "refs" / revision).write_text(str(number) * 40, encoding="utf-8")
        checkpoint(place / "snapshots" / (str(number) * 40), between(share))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    given = ("--revisions", "step200,step100", *READING, "--output", tmp_path / "found")
    said = run("diagnose", "someone/pico", *given)
    assert said.exit_code == 0, said.stderr
    series = HeadSeries.load(tmp_path / "found" / "series.jsonl")
    assert series.steps == (100, 200)
    assert series.source.model == "someone/pico@step100 … someone/pico@step200"
    assert {str(head) for head in series.sick(1)} == set(PLANTED)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("out/checkpoint-5", "--series"), "expected folders checkpoint-N"),
        (("docs", "--series"), "expected folders checkpoint-N"),
        (("a/b", "c/d", "--revisions", "x,y"), "--revisions are of one model; 2 were named"),
        (("a/b", "--revisions", "x"), "a series takes two checkpoints or more"),
        (("out/checkpoint-5", "out/checkpoint-5", "--series"), "named more than once"),
    ],
)
def test_what_is_no_series_is_refused_before_anything_is_measured(
    clinic: Path, arguments: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headsurgeon.cli.examining.open_model", lambda *given, **named: 1 / 0)
    said = run("diagnose", *arguments, *READING, "--output", "new")
    assert said.exit_code == 2
    assert says in said.stderr
    assert not Path("new").exists()


def test_checkpoints_with_another_tokenizer_are_no_series(clinic: Path) -> None:
    pico("bloom").save_pretrained("other")
    char_tokenizer().save_pretrained("other")
    said = run("diagnose", "out/checkpoint-5", "other", "--series", *READING, "--output", "new")
    assert said.exit_code == 2
    assert "other has another tokenizer than checkpoint-5" in said.stderr


def test_models_of_different_shapes_are_no_series(clinic: Path) -> None:
    said = run("diagnose", "out/checkpoint-5", "llama", "--series", *READING, "--output", "new")
    assert said.exit_code == 2
    assert "llama has other layers or heads than checkpoint-5" in said.stderr
    assert not Path("new").exists() or not list(Path("new").glob("*"))


@pytest.mark.parametrize(
    ("labels", "steps"),
    [
        (("checkpoint-5", "checkpoint-10"), [5, 10]),
        (("step1000-tokens4B", "step2000-tokens8B"), [1000, 2000]),
        (("h5_step42", "h5_step140"), [42, 140]),
        (("pass1_e3", "pass2_e1"), [1, 2]),
        (("main", "step10"), None),
        (("a", "b"), None),
        (("e3", "e3b"), None),
        # one number twice is no order
        (("p1_e3", "p1_e6", "p2_e3"), None),
    ],
)
def test_steps_are_the_one_number_in_which_labels_differ(
    labels: tuple[str, ...], steps: list[int] | None
) -> None:
    assert steps_in(labels) == steps


def test_without_steps_checkpoints_stay_in_the_order_they_were_given() -> None:
    found = checkpoints_of(["zoo:b", "zoo:a"])
    assert [(each.spec, each.step) for each in found] == [("zoo:b", 0), ("zoo:a", 1)]
    # subfolders of one repository, as the paper keeps its checkpoints
    found = checkpoints_of(["a/b@main/pass1_e3", "a/b@main/pass2_e1"])
    assert [each.label for each in found] == ["pass1_e3", "pass2_e1"]
    with pytest.raises(SettingsError, match="two checkpoints or more"):
        checkpoints_of(["zoo:a"])
    with pytest.raises(ModelError, match="checkpoint-N"):
        checkpoints_of([str(Path(__file__).parent)])


def test_the_figure_draws_every_head_and_names_those_that_crossed(
    clinic: Path, followed: Result
) -> None:
    series = HeadSeries.load("found/series.jsonl")
    [axes] = series_figure(series).axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == len(series.points)]
    assert len(curves) == 12
    assert axes.get_xlabel() == "step"
    assert {"L1H2", "L1H3"} <= {text.get_text() for text in axes.texts}
    unnumbered = [
        SeriesPoint(step=place, label=name, mass=point.mass, low=point.low, high=point.high)
        for place, (name, point) in enumerate(zip("abcd", series.points, strict=True))
    ]
    [axes] = series_figure(HeadSeries(series.source, tuple(unnumbered))).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == list("abcd")
