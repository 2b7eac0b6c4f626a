"""The demo end to end on a planted pico pair: all that it prints is kept, every file is whole."""

import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from headsurgeon.cli.main import app
from headsurgeon.data import windows
from headsurgeon.demo import DemoSettings, Observer, demo
from headsurgeon.demo import settings as settings_module
from headsurgeon.demo.pipeline import DemoResult
from headsurgeon.demo.wording import against_control
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import (
    Interrupted,
    ModelError,
    OperationError,
    OutputError,
    PlanError,
    WriteError,
)
from headsurgeon.evaluation import evaluate
from headsurgeon.operation import apply_patch
from headsurgeon.operation.merged_checkpoint import write_checkpoint
from headsurgeon.report import Table
from headsurgeon.scores import difference, recovered_share
from headsurgeon.training import StepEvent
from tests.pictures import coloured
from tests.planted import PLANTED, save_pair, save_texts


@dataclass
class Listener:
    """Keeps what it is told."""

    stages: list[str] = field(default_factory=list)
    steps: list[tuple[str, StepEvent]] = field(default_factory=list)
    diagnoses: list[Diagnosis] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def started(self, what: str) -> None:
        self.stages.append(what)

    def finished(self, what: str, seconds: float) -> None:
        assert self.stages[-1] == what

    def trained(self, arm: str, event: StepEvent) -> None:
        self.steps.append((arm, event))

    def diagnosed(self, diagnosis: Diagnosis) -> None:
        self.diagnoses.append(diagnosis)

    def heading(self, text: str) -> None:
        self.headings.append(text)

    def said(self, text: str) -> None:
        self.texts.append(text)

    def tabulated(self, table: Table) -> None:
        self.tables.append(table)


@dataclass
class Impatient(Listener):
    """Presses Ctrl-C after a step."""

    step: int = 1

    def trained(self, arm: str, event: StepEvent) -> None:
        super().trained(arm, event)
        if event.step == self.step:
            raise KeyboardInterrupt


@dataclass
class Finished:
    """A demo that ran."""

    settings: DemoSettings
    listener: Listener
    result: DemoResult

    @property
    def folder(self) -> Path:
        return self.result.folder

    @property
    def record(self) -> dict[str, Any]:
        content = json.loads((self.folder / "demo.json").read_text(encoding="utf-8"))
        assert isinstance(content, dict)
        return content

    @property
    def page(self) -> str:
        return (self.folder / "summary.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoSettings]:
    folder = tmp_path_factory.mktemp("demo")
    healthy, collapsed = save_pair(folder / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings_module, "is_planted", lambda model: model == str(collapsed))
        yield DemoSettings(
            model=str(collapsed),
            ceiling=str(healthy),
            corpus=save_texts(folder / "first"),
            other_corpus=save_texts(folder / "second", seed=1),
            length=32,
            dev_windows=16,
            cost_windows=4,
            test_windows=16,
            max_tokens=2048,
            evaluations=2,
        )


@pytest.fixture(scope="module")
def twins(settings: DemoSettings, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    listener = Listener()
    result = demo(tmp_path_factory.mktemp("twins") / "out", settings, listener)
    return Finished(settings, listener, result)


@pytest.fixture(scope="module")
def alone(
    settings: DemoSettings, twins: Finished, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """Another model: no ceiling, idle heads only, nothing planted."""
    other = tmp_path_factory.mktemp("alone")
    _, collapsed = save_pair(other / "models")
    changed = replace(
        settings,
        model=str(collapsed),
        ceiling=None,
        rule="idle",
        max_cost=9.0,
        corpus_kind="code",
        other_kind="prose",
        statistics_windows=8,
        null_seeds=2,
    )
    listener = Listener()
    return Finished(changed, listener, demo(other / "out", changed, listener))


def test_it_finds_exactly_the_planted_heads_and_operates_on_them(twins: Finished) -> None:
    assert twins.listener.diagnoses[0].sick == PLANTED
    assert twins.result.case.plan.operated == PLANTED
    assert twins.record["diagnosis"]["sick"] == [str(head) for head in PLANTED]


def test_every_arm_trains_the_same_windows_and_every_step_is_told(twins: Finished) -> None:
    per_arm = {
        arm: [e.step for name, e in twins.listener.steps if name == arm]
        for arm in ("surgery", "control", "ceiling")
    }
    assert per_arm["surgery"] == list(range(1, 9))
    assert per_arm["surgery"] == per_arm["control"] == per_arm["ceiling"]
    runs = [json.loads((twins.folder / "runs" / arm / "run.json").read_text()) for arm in per_arm]
    read = [run["identity"]["train"]["tokens"] for run in runs]
    assert read[0] == read[1] == read[2]
    assert [run["identity"]["init"] for run in runs] == ["xavier_uniform_head", "none", "none"]
    outputs = [run["identity"]["output_start"] for run in runs]
    assert outputs == ["zero_output", "keep_output", "keep_output"]


def test_losses_shares_and_differences_are_those_of_the_scores(twins: Finished) -> None:
    judgement, record = twins.result.judgement, twins.record
    scores = judgement.scores["test"]
    assert set(scores) == {"untouched", "surgery", "control", "ceiling"}
    for arm, score in scores.items():
        found = record["losses"]["test"][arm]["nll"]["value"]
        assert found == pytest.approx(score.nll, rel=1e-12)
    wanted = difference(scores["surgery"], scores["control"]).model_dump()
    assert record["surgery_minus_control"]["test"] == wanted
    share = recovered_share(scores["untouched"], scores["surgery"], scores["ceiling"])
    assert record["recovered_share"]["surgery"] == {
        name: None if math.isnan(value) else value for name, value in share.model_dump().items()
    }


def test_the_other_corpus_is_scored_but_never_trained_on(twins: Finished) -> None:
    assert set(twins.record["losses"]) == {"test", "other"}
    other = twins.record["losses"]["other"]["surgery"]
    assert other["corpus"] == twins.settings.other_corpus
    for arm in ("surgery", "control", "ceiling"):
        run = json.loads((twins.folder / "runs" / arm / "run.json").read_text())
        assert run["identity"]["train"]["corpus"] == twins.settings.corpus


def test_the_costs_of_ablating_are_those_of_the_recovery_rule(twins: Finished) -> None:
    judgement = twins.result.judgement
    for shown, ablations in (
        (judgement.ablation["untouched"], judgement.recovery.stock),
        (judgement.ablation["surgery"], judgement.recovery.revived),
    ):
        assert shown.value == pytest.approx(ablations[0].joint.value, abs=1e-6)


def test_the_comparison_with_the_control_is_put_into_words_for_both_corpora(
    twins: Finished,
) -> None:
    over = twins.result.judgement.over_control
    for where, corpus in (("test", twins.settings.corpus), ("other", twins.settings.other_corpus)):
        assert against_control(over[where], corpus) in twins.listener.texts


def test_the_merged_checkpoint_loads_anywhere_with_the_loss_that_was_reported(
    twins: Finished,
) -> None:
    folder = twins.folder / "merged"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = windows(twins.settings.corpus, tokenizer, "test", 32, 16, 0)
    reported = twins.record["losses"]["test"]["surgery"]["nll"]["value"]
    assert evaluate(model, text).nll == pytest.approx(reported, abs=1e-6)
    assert twins.record["merged"]["reloaded_nll"] == pytest.approx(reported, abs=1e-6)


def test_everything_told_is_in_the_record(twins: Finished) -> None:
    shown = twins.record["shown"]
    assert [entry["text"] for entry in shown if "text" in entry] == twins.listener.texts
    assert [entry["stage"] for entry in shown if "stage" in entry] == twins.listener.stages
    tables = {entry["table"]: entry["rows"] for entry in shown if "table" in entry}
    assert tables == {table.key: table.to_dict()["rows"] for table in twins.listener.tables}


def replay(finished: Finished, observer: Observer) -> DemoResult:
    """Tells an observer once more what a demo told."""
    tables = {table.key: table for table in finished.listener.tables}
    for entry in finished.record["shown"]:
        if "stage" in entry:
            observer.started(entry["stage"])
            for arm, event in finished.listener.steps:
                if entry["stage"].startswith(f"training {arm}"):
                    observer.trained(arm, event)
            observer.finished(entry["stage"], entry["seconds"])
        elif "heading" in entry:
            observer.heading(entry["heading"])
        elif "text" in entry:
            observer.said(entry["text"])
        else:
            observer.tabulated(tables[entry["table"]])
    observer.diagnosed(finished.listener.diagnoses[0])
    return finished.result


FIGURE = re.compile(r"\d+(?:[.,]\d+)*")


def numbers(value: object) -> Iterator[float]:
    """The numbers that a record holds as numbers, at any depth."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield abs(value)


def rounded_from(figure: str, held: set[float]) -> bool:
    """Whether a figure is one of the numbers as printed: rounded, in per cent, as perplexity."""
    plain = figure.replace(",", "")
    digits = len(plain.partition(".")[2])
    forms = (lambda x: x, lambda x: 100 * x, lambda x: math.exp(min(x, 99)))
    return any(f"{form(number):.{digits}f}" == plain for number in held for form in forms)


def test_every_figure_that_the_command_prints_is_in_the_record(
    twins: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headsurgeon.demo.demo", lambda o, s, observer: replay(twins, observer))
    done = CliRunner().invoke(app, ["demo", "--output", str(twins.folder)])
    assert done.exit_code == 0, done.output
    printed = done.stdout.replace(str(twins.folder), "")
    record = {key: value for key, value in twins.record.items() if key != "shown"}
    seconds = [entry["seconds"] for entry in twins.record["shown"] if "stage" in entry]
    patch = load_file(twins.folder / "runs" / "surgery" / "patch.safetensors")
    held = {*numbers(record), *seconds, sum(tensor.numel() for tensor in patch.values())}
    words = set(FIGURE.findall(json.dumps(record)))
    # the map shows slopes without the 0 before the point
    words |= {f"{slope:.3f}"[2:] for slope in record["diagnosis"]["slopes"][0]}
    exact = {figure for figure in FIGURE.findall(printed) if "." in figure}
    assert len(exact) > 50
    assert {figure for figure in exact if not rounded_from(figure, held)} == set()
    whole = set(FIGURE.findall(printed)) - exact
    assert {f for f in whole if f not in words and not rounded_from(f, held)} == set()
    for text in twins.listener.texts:
        assert " ".join(text.split()) in " ".join(printed.split())


def test_figures_are_pictures_and_each_caption_says_planted(twins: Finished) -> None:
    names = {"head_map", "mass", "loss", "result"}
    assert {path.stem for path in (twins.folder / "figures").glob("*.png")} == names
    for name in names:
        assert coloured(twins.folder / "figures" / f"{name}.png") > 0.003
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", twins.page, re.S)
    assert len(captions) == len(names)
    assert all("PLANTED" in caption for caption in captions)


def test_the_page_opens_with_planted_and_shows_every_table(twins: Finished) -> None:
    assert "PLANTED" in twins.page.partition("<h2>")[0]
    for table in twins.listener.tables:
        assert table.title in twins.page
        assert all(cell in twins.page for row in table.rows for cell in row)


def test_without_a_twin_there_is_no_ceiling_no_share_and_no_word_of_planting(
    alone: Finished,
) -> None:
    assert set(alone.record["training"]) == {"surgery", "control"}
    assert alone.record["recovered_share"] == {}
    assert alone.record["gap"] is None
    assert alone.record["plan"]["rule"] == "idle"
    assert any("no recovered share" in text for text in alone.listener.texts)
    told = " ".join([*alone.listener.texts, *alone.listener.headings, alone.page]).lower()
    assert "planted" not in told
    assert "ceiling:" not in told
    assert "ceiling" not in " ".join(alone.listener.headings)


def test_another_model_is_diagnosed_on_code_and_on_prose_and_both_are_named(
    alone: Finished,
) -> None:
    settings, record = alone.settings, alone.record
    assert [d.stats.provenance.corpus for d in alone.listener.diagnoses] == [
        settings.corpus,
        settings.other_corpus,
    ]
    assert record["other_diagnosis"]["corpus"] == settings.other_corpus
    assert record["all_sick"]["heads"] == [str(head) for head in PLANTED]
    # both kinds in the first conclusion or the two after it, in every table of losses, in figures
    assert f"Against the untouched model on code ({settings.corpus})" in alone.page
    assert any(f"the control on prose ({settings.other_corpus})" in t for t in alone.listener.texts)
    titles = {table.key: table.title for table in alone.listener.tables}
    assert titles["losses_test"].startswith(f"Loss on code ({settings.corpus})")
    assert titles["losses_other"].startswith(f"Loss on prose ({settings.other_corpus})")


def test_heads_are_measured_on_as_many_test_windows_as_the_settings_say(alone: Finished) -> None:
    assert alone.result.case.stats.provenance.count == 8
    assert alone.result.outcomes["surgery"].stats.provenance.count == 8
    assert alone.result.judgement.scores["test"]["surgery"].count == 16


def test_what_the_planned_heads_cost_on_both_texts_is_in_the_record(alone: Finished) -> None:
    planned = alone.record["planned_cost"]
    assert set(planned) == {"test", "other"}
    assert planned["test"] == alone.record["ablation"]["untouched"]


def test_a_finished_demo_is_replaced_by_the_next_one(alone: Finished, tmp_path: Path) -> None:
    output = shutil.copytree(alone.folder, tmp_path / "out")
    listener = Impatient(step=1)
    with pytest.raises(Interrupted):
        demo(output, alone.settings, listener)
    # from the first step on, although the finished runs were there
    assert [event.step for _, event in listener.steps] == [1]
    assert not (output / "merged").exists()
    assert json.loads((output / "demo.json").read_text())["finished"] is False


def test_an_interrupted_demo_goes_on_and_ends_as_if_nothing_had_happened(
    alone: Finished, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(Interrupted):
        demo(output, alone.settings, Impatient(step=6))
    assert json.loads((output / "demo.json").read_text())["finished"] is False
    listener = Listener()
    demo(output, alone.settings, listener)
    assert [e.step for arm, e in listener.steps if arm == "surgery"] == [7, 8]
    record = json.loads((output / "demo.json").read_text())
    for key in ("losses", "surgery_minus_control", "recovery", "ablation", "drift"):
        assert record[key] == alone.record[key]


def test_a_folder_that_holds_something_else_is_left_alone(
    settings: DemoSettings, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        demo(tmp_path, settings, Listener())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_model_without_sick_heads_is_told_in_one_line(
    settings: DemoSettings, tmp_path: Path
) -> None:
    healthy = replace(settings, model=str(settings.ceiling), ceiling=None)
    with pytest.raises(PlanError, match="no sick head"):
        demo(tmp_path / "out", healthy, Listener())
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_loaded_costs_no_earlier_result(
    alone: Finished, tmp_path: Path
) -> None:
    output = shutil.copytree(alone.folder, tmp_path / "out")
    with pytest.raises(ModelError, match="no such folder"):
        demo(output, replace(alone.settings, model=str(tmp_path / "typo")), Listener())
    assert json.loads((output / "demo.json").read_text())["finished"] is True
    assert (output / "merged" / "model.safetensors").is_file()


def test_a_checkpoint_that_is_not_what_was_evaluated_is_an_error(
    twins: Finished, tmp_path: Path
) -> None:
    from headsurgeon.demo.merged import write_merged
    from headsurgeon.models import load

    model, tokenizer = load(twins.settings.model)
    text = windows(twins.settings.corpus, tokenizer, "test", 32, 4, 0)
    patch = twins.folder / "runs" / "surgery" / "patch.safetensors"
    patient = apply_patch(model, patch)
    with pytest.raises(OperationError, match="not what was evaluated"):
        write_merged(patient, tokenizer, tmp_path / "merged", patch, text, nll=1.0)


def test_a_disk_full_while_the_checkpoint_is_written_costs_no_earlier_one(
    twins: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headsurgeon.models import load

    model, tokenizer = load(twins.settings.model)
    patch = twins.folder / "runs" / "surgery" / "patch.safetensors"
    patient = apply_patch(model, patch)
    write_checkpoint(patient, tokenizer, tmp_path / "merged", patch)
    before = (tmp_path / "merged" / "model.safetensors").read_bytes()

    refused = []

    def full(self: Path, target: Path) -> Path:
        if target.parent.name == "merged" and not refused:
            refused.append(target.name)
            raise OSError(28, "No space left on device")
        return rename(self, target)

    rename = Path.rename
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(WriteError, match="No space left"):
        write_checkpoint(patient, tokenizer, tmp_path / "merged", patch)
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
