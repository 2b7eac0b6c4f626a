"""The demo end to end on a planted pico pair: all that it prints is kept, every file is whole."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from headsurgeon.cli.demo import study_for
from headsurgeon.errors import OperationError, StateError
from headsurgeon.evaluation import evaluate
from headsurgeon.study import Cell, Study, load_results
from headsurgeon.study import merged as merging
from headsurgeon.study.material import scored_windows
from headsurgeon.study.merged import merge_cell
from headsurgeon.study.spec import PRESETS
from tests.clinic import run
from tests.planted import PLANTED
from tests.studies import pico_study, with_arms
from tests.test_page import data

ARMS = ("paper", "gradient_only", "ceiling", "untrained", "ablate_mean")
TRAIN = {"max_tokens": 1024, "learning_rate": 1e-2}
ASKED = ("improves", "mechanism", "harms")


class Finished(NamedTuple):
    """A demo that ran."""

    folder: Path
    model: str
    said: str

    @property
    def record(self) -> dict[str, Any]:
        content = json.loads((self.folder / "demo.json").read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    whole = pico_study(folder)
    study = with_arms(
        whole,
        *ARMS,
        about="The collapse was planted.",
        windows={**whole.windows.model_dump(), "test": 12},
        train={**whole.train, **TRAIN},
        contrasts=tuple(each for each in whole.contrasts if each.name in ASKED),
    )
    path = folder / "pico.yaml"
    path.write_text(study.to_yaml(), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def small(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "twins-quick", preset)


@pytest.fixture(scope="module")
def demo(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    model = Study.load(preset).model
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "twins-quick", preset)
        patch.setenv("COLUMNS", "200")
        said = run("demo", "--model", model, "--output", str(folder), "--jobs", "1")
    assert said.exit_code == 0, said.output
    return Finished(folder, model, said.stdout)


@pytest.mark.parametrize(
    ("threads", "given", "jobs"), [(1, (), 2), (2, (), 1), (2, ("--jobs", "3"), 3)]
)
def test_as_many_models_are_trained_at_once_as_use_two_cores_unless_it_is_said(
    preset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    given: tuple[str, ...],
    jobs: int,
) -> None:
    study = Study.load(preset).model_copy(update={"threads": threads})
    monkeypatch.setattr("headsurgeon.cli.demo.study_for", lambda model: study)
    asked: list[int] = []

    def stop(*args: object, jobs: int, device: str) -> None:
        asked.append(jobs)
        raise OperationError("stopped")

    monkeypatch.setattr("headsurgeon.cli.demo.run_and_show", stop)
    assert "stopped" in run("demo", "--output", tmp_path / "out", *given).stderr
    assert asked == [jobs]


def test_it_operates_on_the_planted_heads_and_draws_them_as_a_map(demo: Finished) -> None:
    (stock,) = load_results(demo.folder).of("untouched")
    assert {str(head) for head in PLANTED} <= set(stock.operated)
    assert re.search(r"^head +0 ", demo.said, flags=re.MULTILINE)
    assert f"{len(stock.operated)} heads to operate on" in demo.said


def test_every_figure_that_is_printed_is_in_the_record(demo: Finished) -> None:
    record = demo.record
    kept = json.dumps(
        [record["tables"], record["sentences"], record["title"]], ensure_ascii=False
    ) + str(demo.folder)
    after_the_map = demo.said[demo.said.index("Verdicts on dev text") :]
    figures = re.findall(r"[+−]?\d+\.\d+", after_the_map)
    assert len(figures) > 50
    assert [figure for figure in figures if figure not in kept] == []
    shown = demo.said[: demo.said.index("heads to operate on")]
    [masses] = record["first_token_mass"].values()
    for row in masses:
        cells = [f"{100 * mass:.0f}" for mass in row]
        assert re.search(r"\b" + r"\D+".join(cells) + r"\D", shown), cells


def test_the_merged_checkpoint_loads_anywhere_with_the_loss_that_was_reported(
    demo: Finished,
) -> None:
    merged = demo.record["merged"]
    folder = demo.folder / merged["folder"]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    windows = scored_windows(Study.load(demo.folder / "study.yaml"), _tokenizer(folder))["code"]
    assert evaluate(model, windows).nll == pytest.approx(merged["nll"], abs=1e-6)
    assert merged["reloaded_nll"] == pytest.approx(merged["nll"], abs=1e-6)
    assert merged["cell"] == "paper-code-0"
    assert f"{merged['nll']:.4f}" in json.dumps(demo.record["tables"]["losses_code_code"])


def _tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_the_page_shows_every_table_the_heads_and_their_attention(demo: Finished) -> None:
    page = (demo.folder / "report.html").read_text(encoding="utf-8")
    for table in demo.record["tables"].values():
        assert table["title"] in page.replace("&#39;", "'").replace("&lt;", "<")
    (paper, *_) = data(page)["models"]
    assert paper["name"] == "paper, code"
    assert paper["stats"]["mass"]["moves"]
    assert [sample["name"] for sample in paper["samples"]] == ["untouched", "trained"]
    assert {head for sample in paper["samples"] for head in sample["maps"]} >= {"L0H2", "L1H3"}


def test_the_same_command_again_computes_nothing_and_says_the_same(
    demo: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    cells = {path: path.stat().st_mtime_ns for path in demo.folder.rglob("cell.json")}
    record = demo.record
    said = run("demo", "--model", demo.model, "--output", str(demo.folder))
    assert said.stdout == demo.said
    assert {path: path.stat().st_mtime_ns for path in demo.folder.rglob("cell.json")} == cells
    assert demo.record == record


def test_the_card_of_the_merged_model_has_the_run_and_the_figures_of_the_study(
    demo: Finished,
) -> None:
    card = (demo.folder / "merged" / "README.md").read_text("utf-8")
    (cell,) = load_results(demo.folder).of("paper", "code")
    assert cell.trained is not None
    assert f"{cell.trained.tokens} tokens read" in card
    for scored in cell.scored.values():
        assert f"| paper | {sum(scored.nll) / sum(scored.tokens):.4f} |" in card
    assert "- paper − untouched: " in card
    assert f"of {len(cell.operated)} heads (not sick" in card
    assert "nothing is claimed" not in card


def test_what_the_user_put_into_the_merged_folder_is_left_alone(demo: Finished) -> None:
    note = demo.folder / "merged" / "NOTES.md"
    note.write_text("mine")
    try:
        said = run("demo", "--model", demo.model, "--output", str(demo.folder))
        assert said.exit_code == 2
        assert "NOTES.md" in said.stderr
        assert note.read_text() == "mine"
    finally:
        note.unlink()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    said = run("demo", "--output", str(tmp_path))
    assert said.exit_code == 2
    assert "something else" in said.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_of_another_demo_is_refused(demo: Finished) -> None:
    said = run("demo", "--model", "zoo:smollm2-135m", "--output", str(demo.folder))
    assert said.exit_code == 2
    assert "another study" in said.stderr


def test_of_other_models_only_idle_heads_are_operated_on_and_there_is_no_ceiling() -> None:
    other = study_for("bigscience/bloom-560m")
    assert (other.model, other.twin, other.plan.rule) == ("bigscience/bloom-560m", None, "idle")
    assert other.plan.diagnose_on == ("code", "prose")
    assert "SmolLM2" in other.about
    assert study_for("zoo:smollm2-135m") == Study.load("smollm2")


def test_a_checkpoint_that_is_not_what_was_evaluated_is_an_error(
    demo: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worse(*arguments: Any) -> Any:
        score = evaluate(*arguments)
        return score.model_copy(update={"document_nll": score.document_nll * 1.001})

    monkeypatch.setattr(merging, "evaluate", worse)
    with pytest.raises(OperationError, match="not what was evaluated"):
        merge_cell(demo.folder, Cell("paper", "code", 0), tmp_path / "merged")


def test_a_cell_without_slices_cannot_be_merged(demo: Finished, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="nothing to merge"):
        merge_cell(demo.folder, Cell("untrained", "", 0), tmp_path / "merged")
