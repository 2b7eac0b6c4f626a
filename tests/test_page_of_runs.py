"""Pages of folders of results: made of the files alone, with the numbers that are in them."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import headsurgeon as hs
from headsurgeon.errors import InputError, StudyError
from headsurgeon.heads import HeadId
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.report.folder_page import page_of
from headsurgeon.report.head_moments import HeadMoments
from headsurgeon.study import Study
from headsurgeon.training import redistribution, sweep
from headsurgeon.training.run_file import read_run_file
from tests.clinic import checkpoint, run, sick_bloom, write_text
from tests.studies import TEXT
from tests.test_page import Reader, data, moments

# as the name of a folder: no slash
MODEL = "<script>alert(1)<b>[bold]\x1b[31mred\u202eder"
DOCS = "<script>docs\u202e"
CORPUS = f"text:{DOCS}/*.txt"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("clinic")
    checkpoint(folder / MODEL, sick_bloom())
    write_text(folder / DOCS)
    for place in (folder / DOCS).iterdir():
        place.write_text(place.read_text().replace(" ", "</script>[b]"))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


def operate(output: str, seed: int = 0) -> str:
    Plan(
        model=MODEL,
        rule="heads",
        seed=seed,
        heads=(PlannedHead(id=HeadId(1, 2), ablation_cost=0.25, statistics={"null_mass": 0.1}),),
    ).save("plan.yaml")
    done = run(
        *("operate", MODEL, "--plan", "plan.yaml", "--corpus", CORPUS, "--output", output),
        *("--length", "32", "--max-tokens", "1024", "--dev-windows", "4", "--yes"),
        *("--evaluate-every", "2"),
    )
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def said(clinic: Path) -> str:
    operate("second", seed=1)
    return operate("run")


def test_operate_ends_with_the_path_of_its_page(clinic: Path, said: str) -> None:
    assert "page: run/report.html" in said
    page = (clinic / "run" / "report.html").read_text(encoding="utf-8")
    (model,) = data(page)["models"]  # type: ignore[misc]
    found = redistribution(clinic / "run")
    assert [step for _, step, _ in model["moments"]] == [None, *found.steps]
    assert model["operated"] == [found.mass_before.shape[1] + 2]
    assert {"mass", "entropy", "distance", "slope", "null", "cost_zero"} <= set(model["stats"])
    assert [sample["name"] for sample in model["samples"]] == ["untouched", "now"]
    for sample in model["samples"]:
        assert "L1H2" in sample["maps"]
    text = Reader(page).text
    assert f"{sweep(clinic / 'run').minimum.loss:.4f}" in text
    assert "peak memory" in text
    assert "--max-tokens 1024" in text


def test_the_command_of_a_page_repeats_the_run(clinic: Path, said: str) -> None:
    shown = page_of([clinic / "run"]).command
    words = shlex.split(shown.replace("DIR", "again"))
    Path("plan.yaml").write_text(read_run_file(clinic / "run").plan)
    assert words[0] == "headsurgeon"
    done = run(*words[1:], "--yes")
    assert done.exit_code == 0, done.output
    first, second = (read_run_file(clinic / name) for name in ("run", "again"))
    assert first.identity == second.identity
    assert first.result is not None
    assert second.result is not None
    # a safetensors file has its metadata in any order
    assert first.result | {"patch_sha256": ""} == second.result | {"patch_sha256": ""}


@pytest.mark.parametrize("started", [False, True])
def test_the_page_of_a_whole_model_does_not_say_that_the_rest_stayed(
    started: bool, clinic: Path
) -> None:
    model, tokenizer = hs.load(MODEL)
    plan = Plan(model=MODEL, rule="heads", heads=(PlannedHead(id=HeadId(1, 2)),))
    start = hs.operate(model, plan, seed=5, init="qk_only") if started else None
    settings = hs.TrainSettings(max_tokens=512, length=32, dev_windows=4, evaluate_every=2)
    texts = hs.training_windows(CORPUS, tokenizer, settings)
    output = clinic / f"whole-{started}"
    hs.train(hs.open_full(model, plan, start=start), *texts, output=output, settings=settings)
    page = page_of([output])
    assert ("--whole-model" in page.command, bool(page.command)) == (started, started)
    assert "the whole model was trained" in page.lead[0].lower()
    assert ("were given a start" in page.lead[0]) == started
    assert page.facts["start"] == ("qk_only, zero_output, seed 5" if started else "–, –, seed –")
    written = " ".join((*page.lead, *(section.title for section in page.sections)))
    assert "nobody touched" not in written.lower()
    assert "stayed as it was" not in written


def test_names_and_texts_of_others_are_shown_and_do_nothing(clinic: Path, said: str) -> None:
    html = (clinic / "run" / "report.html").read_text(encoding="utf-8")
    assert html.count("<script") == 2
    assert "\x1b" not in html + said
    assert "\u202e" not in html + said
    shown = Reader(html).text
    assert "<script>alert(1)<b>[bold]\\x1b[31mred\\u202eder" in shown
    assert "<script>docs\\u202e" in shown
    tokens = data(html)["models"][0]["samples"][0]["tokens"]  # type: ignore[index]
    assert {"<", ">", "["} <= set(tokens)


def test_the_names_of_arms_are_plain_words() -> None:
    text = TEXT.replace("name: paper", 'name: "<script>"')
    with pytest.raises(StudyError, match="name"):
        Study.from_yaml(text.format(collapsed="a", healthy="b", code="text:c", prose="text:d"))


def test_the_page_is_written_again_without_the_model(clinic: Path, said: str) -> None:
    place = clinic / "run" / "report.html"
    before = place.read_text(encoding="utf-8")
    place.unlink()
    assert run("report", "run").exit_code == 0
    assert place.read_text(encoding="utf-8") == before


def test_several_runs_stand_side_by_side(clinic: Path, said: str) -> None:
    done = run("report", "run", "second", "-o", "both.html")
    assert done.exit_code == 0, done.output
    page = (clinic / "both.html").read_text(encoding="utf-8")
    names = [model["name"] for model in data(page)["models"]]  # type: ignore[attr-defined]
    assert names == ["run", "second"]
    assert "Runs beside each other" in Reader(page).text


def test_a_file_that_is_no_page_of_ours_is_left_alone(clinic: Path, said: str) -> None:
    (clinic / "mine.html").write_text("<p>mine")
    done = run("report", "run", "-o", "mine.html")
    assert done.exit_code == 2
    assert "is no page written by headsurgeon" in done.output
    assert (clinic / "mine.html").read_text() == "<p>mine"
    assert run("report", "run", "-o", "run/report.html").exit_code == 0


def test_a_diagnosis_and_a_plan_have_pages(clinic: Path, said: str) -> None:
    done = run(
        *("diagnose", MODEL, "--corpus", CORPUS, "--length", "32", "--count", "24"),
        *("--output", "diagnosis"),
    )
    assert done.exit_code == 0, done.output
    diagnosis = hs.Diagnosis.load("diagnosis/diagnosis.json")
    page = page_of([Path("diagnosis")])
    (model,) = page.heads
    assert np.array_equal(model.values["mass"][0], diagnosis.stats.first_token_mass)
    assert f"{len(diagnosis.sick)} of {diagnosis.heads}" in page.figures[0].value
    assert page_of([Path("plan.yaml")]).sections[0].tables[0].rows[0][0] == "L1H2"


def test_a_folder_of_something_else_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match=r"expected a folder that holds one of study\.yaml"):
        hs.write_report(tmp_path)
    with pytest.raises(InputError, match="expected 1 to 12 folders, got 0"):
        hs.write_report()


def test_thinned_moments_keep_the_first_and_the_last() -> None:
    given: HeadMoments = moments(count=50)
    found = given.thinned(7)
    assert len(found.moments) == 7
    assert (found.moments[0], found.moments[-1]) == (given.moments[0], given.moments[-1])
    assert np.array_equal(found.values["mass"][-1], given.values["mass"][-1])
