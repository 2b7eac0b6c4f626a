"""Claims about learning rates of a study: chosen under the terms that they are used under."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from headsurgeon.errors import StudyError
from headsurgeon.operation import Patient
from headsurgeon.starts import CalibrationRecord
from headsurgeon.study import Cell, Study, load_results, run_study
from headsurgeon.study.material import training_text
from headsurgeon.study.rates import run_rates
from headsurgeon.study.results import CELL, folder_of, rate_file, rates_folder
from headsurgeon.study.treatment import open_cell
from tests.studies import numbers, pico_study, with_arms

# all that may set a search apart from the training that it is for
ARM = {
    "name": "held",
    "init": "induction",
    "anchor": "prose",
    "also_trained_on": ("prose",),
    "calibration": 2,
    "train": {"anchor": 1.0, "anchor_windows": 4, "anchor_batch": 2},
    "rates": (1e-2, 2e-2, 4e-2),
}
CELL_OF_IT = Cell("held", "code", 0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("models")
    given = folder / "given.json"
    given.write_text(json.dumps(["the head sleeps", "the head attends to the first token again"]))
    probes = ("prose", {"name": "given", "corpus": f"texts:{given}"})
    return with_arms(pico_study(folder), ARM, probes=probes, twin=None)


@pytest.fixture(scope="module")
def finished(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "finished"
    run_study(study, folder)
    return folder


def log_of(folder: Path) -> list[dict[str, Any]]:
    """The log of the cell's run, but for how fast it was."""
    lines = (folder_of(folder, CELL_OF_IT) / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    for entry in entries:
        entry.pop("tokens_per_second", None)
    return entries


def test_a_rate_is_searched_under_the_terms_that_the_cell_is_trained_under(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    (cell,) = load_results(folder).of("held", "code")
    assert cell.trained is not None
    # the search's run became the cell's: it was not trained twice
    searched = rates_folder(folder, "held", "code")
    assert (searched / "0.02").is_dir() or (searched / "0.01").is_dir()
    assert not (searched / f"{cell.trained.learning_rate:g}").exists()
    steps = [entry for entry in log_of(folder) if entry["kind"] == "step"]
    assert all(set(step["terms"]) == {"anchor"} for step in steps)
    evaluations = [entry for entry in log_of(folder) if entry["kind"] == "evaluation"]
    assert all(set(each["probes"]) == {"prose", "given"} for each in evaluations)
    # without it, the cell trains the same
    shutil.rmtree(folder_of(folder, CELL_OF_IT))
    run_study(study, folder)
    assert log_of(folder) == log_of(finished)
    assert numbers(folder) == numbers(finished)


def test_what_start_and_anchor_read_is_taken_from_the_budget(finished: Path, study: Study) -> None:
    (cell,) = load_results(finished).of("held", "code")
    assert cell.trained is not None
    trained = cell.trained
    assert (trained.calibration_tokens, trained.anchor_tokens) == (64, 64 * trained.steps)
    read = trained.calibration_tokens + trained.tokens + trained.anchor_tokens
    budget = study.train["max_tokens"]
    assert budget - (128 + 64) < read <= budget


def test_a_search_of_other_settings_is_refused_in_words(
    study: Study, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    path = rate_file(folder, "held", "code")
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "key": "0" * 64}))
    with pytest.raises(StudyError, match=r"rate\.json is of other settings.*remove it"):
        run_rates(folder, "held", "code", "cpu")
    (folder_of(folder, CELL_OF_IT) / CELL).unlink()
    with pytest.raises(StudyError, match=r"rate\.json is of other settings"):
        run_study(study, folder)


def test_a_start_looks_at_what_it_is_trained_on_and_not_at_what_rates_are_chosen_on(
    study: Study, finished: Path
) -> None:
    opened = open_cell(study, finished, CELL_OF_IT, "cpu")
    arm = study.arm("held")
    train, dev = training_text(study, arm, "code", opened.tokenizer, study.settings(arm))
    assert isinstance(opened.learner, Patient)
    assert opened.learner.calibration == CalibrationRecord.of(train.take(arm.calibration))
    looked_at = {tuple(window) for window in train.take(arm.calibration).tokens.tolist()}
    assert not looked_at & {tuple(window) for window in dev.tokens.tolist()}
