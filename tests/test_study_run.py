"""Claims about running studies, on a planted pico pair: resumed, anywhere, the same numbers."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from headsurgeon.cli.main import app
from headsurgeon.errors import InputError, Interrupted, SettingsError, StudyError
from headsurgeon.evaluation import evaluate
from headsurgeon.models import load
from headsurgeon.operation import apply_patch
from headsurgeon.passes import Passes
from headsurgeon.planning import Plan
from headsurgeon.report.wording import shares_in_words
from headsurgeon.study import Cell, CellResult, Study, conclude, load_results, run_study
from headsurgeon.study.cell import run_cell
from headsurgeon.study.engines import Task, run_tasks
from headsurgeon.study.material import scored_windows
from headsurgeon.study.merged import merge_cell
from headsurgeon.study.rates import next_rate
from headsurgeon.study.results import CELL, PREPARED, STUDY, folder_of
from tests.planted import PLANTED
from tests.studies import numbers, pico_study, with_arms


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return pico_study(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "finished"
    run_study(study, folder)
    return folder


@pytest.fixture(scope="module")
def part(study: Study) -> Study:
    """The same study with two of its arms; its cells come to the same."""
    arms = tuple(arm for arm in study.arms if arm.name in ("paper", "untrained"))
    return study.model_copy(update={"arms": arms, "contrasts": study.contrasts[:1]})


def test_every_cell_is_done_and_scored_on_every_text(finished: Path, study: Study) -> None:
    results = load_results(finished)
    assert not results.missing
    assert {cell.failure for cell in results.cells} == {""}
    assert [cell.arm for cell in results.cells] == [arm.name for arm in study.every_arm]
    for cell in results.cells:
        assert set(cell.scored) == set(cell.heads) == {"code", "prose"}


def test_the_plan_holds_the_planted_heads(finished: Path) -> None:
    assert set(PLANTED) <= set(Plan.load(finished / "plan.yaml").operated)


def test_what_was_not_trained_is_not_recovered(finished: Path) -> None:
    (cell,) = load_results(finished).of("untrained")
    assert cell.recovery is not None
    assert cell.recovery.left_sick
    assert cell.recovery.recovered == ()
    scored = cell.scored["code"]
    assert scored.nll == scored.ablated["zero"]


@pytest.mark.parametrize("method", ["slices", "then_full"])
def test_a_start_pays_for_what_it_has_looked_at_where_there_is_less_than_it_asks_for(
    method: str, study: Study, tmp_path: Path
) -> None:
    asked, left = 800, 1024
    trained = {"max_tokens": asked * 32 + left}
    arm = {"name": "canonical", "method": method, "calibration": asked, "train": trained}
    run_study(with_arms(study, arm, twin=None), tmp_path / "study")
    (cell,) = load_results(tmp_path / "study").of("canonical", "code")
    assert cell.trained is not None
    assert 0 < cell.trained.calibration_tokens < asked * 32
    unread = trained["max_tokens"] - cell.trained.calibration_tokens - cell.trained.tokens
    assert 0 <= unread < cell.trained.tokens / cell.trained.steps
    # a cell of a version that took away what was asked for is not taken for this one
    path = folder_of(tmp_path / "study", cell.cell) / CELL
    content = json.loads(path.read_text())
    content["trained"]["settings"]["max_tokens"] = left
    path.write_text(json.dumps(content))
    with pytest.raises(
        StudyError, match=r"cell\.json: after the .* remove it to have it run again"
    ):
        run_cell(tmp_path / "study", cell.cell, "cpu")


def test_heads_of_a_whole_model_from_a_start_are_held_to_the_same_rule(
    study: Study, tmp_path: Path
) -> None:
    """As recovered or not as those of slices; what its start read is paid for."""
    trained = {"learning_rate": 2e-3, "heads_rate": 4.0, "max_tokens": 1024}
    whole = {"name": "canonical_then_full", "calibration": 4, "train": trained}
    folder = tmp_path / "whole"
    run_study(with_arms(study, whole, {"name": "ceiling", "method": "full"}, "untrained"), folder)
    results = load_results(folder)
    assert [cell.failure for cell in results.failed] == []
    (cell,), (untrained,) = results.of("canonical_then_full", "code"), results.of("untrained")
    assert cell.recovery is not None
    assert untrained.recovery is not None
    assert cell.recovery.heads == untrained.recovery.heads
    # the null is that of a random start, whatever looked at text
    assert cell.recovery.null_mass == untrained.recovery.null_mass
    assert cell.drift == {}
    assert cell.trained is not None
    assert cell.trained.calibration_tokens == 4 * 32
    assert cell.trained.tokens + cell.trained.calibration_tokens <= 1024
    assert cell.trained.parameters == sum(p.numel() for p in load(study.model)[0].parameters())
    # its model is a checkpoint like another's, with every weight of its own
    merged = merge_cell(folder, cell.cell, tmp_path / "merged")
    assert merged.reloaded_nll == pytest.approx(merged.nll, abs=1e-6)
    assert "trained whole" in (tmp_path / "merged" / "README.md").read_text()
    concluded = conclude(folder)
    assert "the whole of it trained" in shares_in_words(concluded.shares, concluded.results.study)


def test_ablating_is_scored_as_the_untouched_model_without_its_heads(finished: Path) -> None:
    results = load_results(finished)
    (stock,), (pruned,) = results.of("untouched"), results.of("ablate_mean")
    assert pruned.scored["code"].nll == stock.scored["code"].ablated["mean"]


def test_every_sick_head_can_be_ablated_whatever_the_plan_says(
    finished: Path, study: Study, tmp_path: Path
) -> None:
    (stock,), (ablated,) = (load_results(finished).of(arm) for arm in ("untouched", "ablate_sick"))
    assert ablated.operated == stock.operated
    rule = study.plan.model_copy(update={"rule": "heads", "heads": (str(PLANTED[0]),)})
    arms = tuple(arm for arm in study.arms if arm.name == "ablate_sick")
    fewer = study.model_copy(update={"plan": rule, "arms": arms, "contrasts": ()})
    run_study(fewer, tmp_path / "fewer")
    results = load_results(tmp_path / "fewer")
    assert results.of("untouched")[0].operated == (str(PLANTED[0]),)
    assert results.of("ablate_sick")[0].operated == stock.operated


def test_controls_operate_on_as_many_other_heads_in_each_layer(finished: Path) -> None:
    results = load_results(finished)
    (stock,), (matched,) = results.of("untouched"), results.of("matched_healthy", "code")
    layers = [[name.split("H")[0] for name in cell.operated] for cell in (stock, matched)]
    assert layers[0] == layers[1]
    assert not set(stock.operated) & set(matched.operated)
    (column,) = results.of("column", "code")
    assert set(column.operated) == {*stock.operated, "L0H0", "L1H0"}


def test_text_that_was_not_trained_on_is_judged_by_its_margin(finished: Path) -> None:
    decisions = {each.contrast: each for each in conclude(finished).decisions}
    assert set(decisions) == {"improves", "mechanism", "recovers", "pruning", "harms"}
    assert (decisions["harms"].text, decisions["harms"].outcome) == ("prose", "equivalent")
    value = decisions["mechanism"].value
    scores = [load_results(finished).of(arm, "code")[0] for arm in ("paper", "gradient_only")]
    losses = [sum(s.scored["code"].nll) / sum(s.scored["code"].tokens) for s in scores]
    assert value == pytest.approx(losses[0] - losses[1], abs=1e-12)


def test_running_it_again_computes_nothing(finished: Path, study: Study) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("cell.json")}
    run_study(study, finished)
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("cell.json")} == before


class Impatient:
    """Stops the study after some tasks."""

    def __init__(self, after: int) -> None:
        self.left = after

    def prepared(self, what: str, windows: int | None) -> None:
        """Nothing."""

    def read(self, windows: int) -> None:
        """Nothing."""

    def planned(self, todo: int, done: int) -> None:
        """Nothing."""

    def finished(self, task: Task) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupted("stopped")


class Counting(Impatient):
    """Adds up what the steps of the preparation read, and stops behind it."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int | None]] = []
        self.counts: list[int] = []

    def prepared(self, what: str, windows: int | None) -> None:
        self.steps.append((what, windows))
        self.counts.append(0)

    def read(self, windows: int) -> None:
        self.counts[-1] += windows

    def planned(self, todo: int, done: int) -> None:
        raise Interrupted("stopped")


@pytest.mark.parametrize(
    "changes",
    [
        {"ablation_mode": "zero"},
        {"ablation_mode": "mean"},
        # too few for estimates
        {"rule": "heads", "heads": ("L1H1", "L1H2")},
        {"rule": "heads", "heads": ("L1H1",)},
    ],
)
def test_each_step_of_the_preparation_reads_as_many_windows_as_it_says(
    study: Study, tmp_path: Path, changes: dict[str, Any]
) -> None:
    rule = study.plan.model_copy(update=changes)
    counting = Counting()
    with pytest.raises(Interrupted):
        run_study(study.model_copy(update={"plan": rule}), tmp_path / "study", observer=counting)
    promised = [0 if windows is None else windows for _, windows in counting.steps]
    assert counting.counts == promised
    assert [bool(count) for count in promised] == [
        "loading" not in what for what, _ in counting.steps
    ]


def same(folder: Path, finished: Path) -> bool:
    """Whether every cell came to what it comes to in the whole study."""
    whole = numbers(finished)
    return numbers(folder) == {name: whole[name] for name in numbers(folder)}


def test_a_study_that_is_stopped_and_run_again_gives_the_same_numbers(
    finished: Path, part: Study, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    with pytest.raises(Interrupted):
        run_study(part, folder, observer=Impatient(2))
    # as a kill would leave it: a run at its end, the cell's file not yet there
    (folder_of(folder, Cell("paper", "code", 0)) / CELL).unlink()
    run_study(part, folder)
    assert len(numbers(folder)) == 3
    assert same(folder, finished)


@pytest.mark.parametrize(
    ("engine", "package", "options"),
    [
        ("local", "headsurgeon", {}),
        pytest.param("slurm", "submitit", {"cluster": "local"}, marks=pytest.mark.slow),
        pytest.param("ray", "ray", {}, marks=pytest.mark.slow),
    ],
)
def test_every_engine_gives_the_same_numbers(
    finished: Path, part: Study, tmp_path: Path, engine: str, package: str, options: dict[str, Any]
) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is an optional extra")
    run_study(part, tmp_path / "study", engine=engine, jobs=2, options=options)
    assert same(tmp_path / "study", finished)


def test_passes_of_an_arm_are_one_cell_and_one_patch(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    arm = {"name": "twice", "like": "paper", "passes": 2, "train": {"learning_rate": 1e-2}}
    twice = Study.model_validate({**dict(study), "arms": (arm,), "contrasts": ()})
    run_study(twice, tmp_path / "study")
    results = load_results(tmp_path / "study")
    assert {cell.arm: cell.failure for cell in results.failed} == {}
    (cell,) = results.of("twice", "code")
    folder = tmp_path / "study" / "cells" / "twice-code-0"
    sequence = Passes.load(folder / "passes.json")
    assert cell.trained is not None
    assert cell.trained.passes == len(sequence.passes)
    assert cell.trained.tokens == sum(each.tokens for each in sequence.passes)
    model, tokenizer = load(study.model)
    apply_patch(model, folder / str(cell.patch))
    whole = evaluate(model, scored_windows(twice, tokenizer)["code"])
    assert list(cell.scored["code"].nll) == pytest.approx(whole.document_nll.tolist(), rel=1e-6)
    # the first pass is the arm that takes but one, and a run again computes nothing
    (once,) = load_results(finished).of("paper", "code")
    assert once.trained is not None
    assert sequence.passes[0].dev_loss == pytest.approx(once.trained.kept_dev_loss, rel=1e-6)
    before = (folder / "cell.json").read_bytes()
    run_study(twice, tmp_path / "study")
    assert (folder / "cell.json").read_bytes() == before


def test_what_an_anchor_reads_in_every_pass_is_counted(study: Study, tmp_path: Path) -> None:
    arm = {"name": "twice", "like": "anchor", "anchor": "prose", "passes": 2}
    run_study(with_arms(study, arm), tmp_path / "study")
    (cell,) = load_results(tmp_path / "study").of("twice", "code")
    runs = sorted((tmp_path / "study" / "cells" / "twice-code-0").glob("pass-*/run.json"))
    read = [json.loads(run.read_text())["result"]["anchor_tokens"] for run in runs]
    assert cell.trained is not None
    assert cell.trained.anchor_tokens == sum(read) > 0


def test_a_start_that_there_is_not_is_refused_before_anything_is_computed(
    part: Study, tmp_path: Path
) -> None:
    arms = tuple(arm.model_copy(update={"init": "xavier_cubic"}) for arm in part.arms)
    with pytest.raises(StudyError, match=r"arm paper: no init 'xavier_cubic'.*arm untrained: no"):
        run_study(part.model_copy(update={"arms": arms}), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_an_arm_that_fails_says_why_and_the_others_go_their_way(
    finished: Path, study: Study, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    # which moves matrices of heads, and has none
    broken = {"name": "broken", "method": "full", "train": {"optimizer": "muon"}}
    grown = Study.model_validate(
        {**study.model_dump(), "arms": (*(a.model_dump() for a in study.arms), broken)}
    )
    result = run_study(grown, folder)
    (failed,) = result.results.failed
    assert (failed.arm, "muon" in failed.failure) == ("broken", True)
    assert len(numbers(folder)) == len(numbers(finished)) + 1
    # and the command says so
    (folder / STUDY).unlink()
    (folder / STUDY).write_text(grown.to_yaml())
    shown = CliRunner().invoke(app, ["study", str(folder / STUDY), "--output", str(folder)])
    assert shown.exit_code == 1, shown.stderr
    assert "broken-code-0" in shown.stderr


def test_another_study_is_refused(finished: Path, study: Study) -> None:
    other = study.model_copy(update={"windows": study.windows.model_copy(update={"seed": 1})})
    with pytest.raises(StudyError, match=r"holds another study .* windows differ"):
        run_study(other, finished)


def test_a_cell_of_other_settings_is_refused_and_named(
    finished: Path, study: Study, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    changed = [arm.model_dump() for arm in study.arms]
    changed[0]["train"] = {"learning_rate": 0.5}
    other = Study.model_validate({**study.model_dump(), "arms": tuple(changed)})
    with pytest.raises(StudyError, match=r"paper-code-0.*other settings"):
        run_study(other, folder)


def test_text_that_changed_meanwhile_is_refused(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    prepared = json.loads((folder / PREPARED).read_text())
    prepared["windows"]["prose"] = "0" * 64
    (folder / PREPARED).write_text(json.dumps(prepared))
    for path in folder.rglob(CELL):
        path.unlink()
    with pytest.raises(StudyError, match="test windows of prose"):
        run_study(study, folder)


@pytest.mark.parametrize("damage", ["{}", "[1", '{"kind": "cell", "schema": 1}', ""])
def test_a_damaged_cell_is_refused_in_words(finished: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    path = folder_of(folder, Cell("untouched")) / CELL
    path.write_text(damage)
    with pytest.raises(InputError, match=r"cell\.json"):
        load_results(folder)


def test_a_cell_that_is_written_and_read_is_the_same(finished: Path, tmp_path: Path) -> None:
    for cell in load_results(finished).cells:
        cell.save(tmp_path / CELL)
        assert CellResult.load(tmp_path / CELL) == cell


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ({1.0: 3.0, 2.0: 2.0, 4.0: 3.0}, None),
        ({1.0: 1.0, 2.0: 2.0, 4.0: 3.0}, 0.5),
        ({1.0: 3.0, 2.0: 2.0, 4.0: 1.0}, 8.0),
        ({1.0: 3.0, 2.0: 2.0, 4.0: np.inf}, None),
        ({1.0: np.nan, 2.0: 2.0, 4.0: 1.0}, 8.0),
        ({1.0: 2.0, 2.0: 2.0, 4.0: 2.0}, None),
    ],
)
def test_a_grid_grows_where_its_best_is_at_an_end(
    losses: dict[float, float], expected: float | None
) -> None:
    assert next_rate(losses) == expected


def test_a_rate_is_chosen_between_two_worse_ones(study: Study, tmp_path: Path) -> None:
    arm = {"name": "gradient_only", "rates": (1e-1, 2e-1, 4e-1)}
    run_study(with_arms(study, arm, twin=None), tmp_path / "study")
    found = json.loads((tmp_path / "study/rates/gradient_only-code/rate.json").read_text())
    losses = {float(rate): loss for rate, loss in found["losses"].items()}
    assert next_rate(losses) is None
    assert losses[found["chosen"]] == min(losses.values())
    (cell,) = load_results(tmp_path / "study").of("gradient_only", "code")
    assert cell.trained is not None
    assert cell.trained.learning_rate == found["chosen"]


@pytest.mark.parametrize(
    ("engine", "jobs", "words"), [("cloud", 1, "no engine"), ("local", 0, "at least 1")]
)
def test_an_engine_that_there_is_not_is_refused(
    tmp_path: Path, engine: str, jobs: int, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        run_tasks(engine, tmp_path, [Task(Cell("paper"))], lambda task: None, jobs=jobs)


@pytest.fixture(scope="module")
def printed(finished: Path) -> str:
    return CliRunner().invoke(app, ["report", str(finished)]).output


def test_the_page_is_made_of_the_files_alone(finished: Path, printed: str) -> None:
    page = (finished / "report.html").read_text()
    assert "report.html" in printed
    for cell in load_results(finished).cells:
        assert cell.arm in page
    assert "mechanism" in page
