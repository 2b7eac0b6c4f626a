"""The command line: what each command writes and says, from a diagnosis to a merged checkpoint."""

import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import Result

from headsurgeon.cli.guard import guarded
from headsurgeon.cli.head_map import HeadMap
from headsurgeon.cli.main import EXAMPLES
from headsurgeon.cli.option_texts import first_last
from headsurgeon.cli.progress import duration
from headsurgeon.cli.summary import counts_table
from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import OperationError, SettingsError
from headsurgeon.operation import read_patch
from headsurgeon.paper import reported_diagnosis
from headsurgeon.planning import Plan
from tests.clinic import CORPUS, PLANTED, READING, checkpoint, run, sick_bloom, write_text
from tests.pico import pico

TRAINING = ("--length", "32", "--max-tokens", "1024", "--dev-windows", "4")
PATCH = "run/patch.safetensors"
STEPS: dict[str, tuple[str, ...]] = {
    "diagnose": ("sick", *READING, "--output", "out", "--first-token-test"),
    "plan": ("out", "--rule", "sick", "-o", "plan.yaml", "--cost-count", "4"),
    "operate": ("sick", "--plan", "plan.yaml", "--corpus", CORPUS, "--output", "run", *TRAINING),
    "evaluate": (
        *("sick", "--patch", PATCH, "--baseline", "healed", "--plan", "plan.yaml"),
        *(*READING, "--output", "scores.json"),
    ),
    "merge": ("sick", "--patch", PATCH, "--output", "repaired"),
}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a sick model in `sick` and text in `docs`."""
    folder = tmp_path_factory.mktemp("clinic")
    checkpoint(folder / "sick", sick_bloom())
    checkpoint(folder / "healed", pico("bloom"))
    write_text(folder / "docs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def results(clinic: Path) -> dict[str, Result]:
    """Every step of the whole way, one after the other."""
    found = {}
    for name, arguments in STEPS.items():
        found[name] = run(name, *arguments)
        assert found[name].exit_code == 0, f"{name}: {found[name].stderr}"
    return found


def slices(patch: Path) -> dict[str, torch.Tensor]:
    _, tensors = read_patch(patch)
    return tensors


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.usefixtures("results")
class TestTheWholeWay:
    def test_diagnose_finds_the_planted_heads_and_writes_every_statistic(
        self, clinic: Path
    ) -> None:
        diagnosis = Diagnosis.load(clinic / "out" / "diagnosis.json")
        assert tuple(str(head) for head in diagnosis.sick) == PLANTED
        assert len((clinic / "out" / "heads.csv").read_text().splitlines()) == 1 + 12
        assert "mlp_dormancy" in (clinic / "out" / "layers.csv").read_text()
        tested = json.loads((clinic / "out" / "first_token_test.json").read_text())
        assert tested["heads"]["L1H2"]["follows"] != "position"

    def test_diagnose_shows_the_map_with_slopes_and_what_to_do_next(
        self, results: dict[str, Result]
    ) -> None:
        said = results["diagnose"].stdout
        assert re.search(r"slope +\.250 \.062 \.016 \.004", said)
        assert re.search(r"L1 .*D.*D.* 2\n", said)
        assert "an untrained head would have mass" in said
        assert "in one pass with the statistics (tiles); float32" in said
        assert "headsurgeon plan out/diagnosis.json --rule sick" in said

    def test_plan_prices_heads_with_the_attention_asked_for(self, clinic: Path) -> None:
        options = ("--rule", "sick", "-o", "priced.yaml", "--cost-count", "2", "--overwrite")
        for asked, used in (("auto", "tiles"), ("stock", "stock"), ("fast", "tiles")):
            said = run("plan", "out", *options, "--attention", asked)
            assert said.exit_code == 0, said.stderr
            assert f"with attention {used}" in " ".join(said.stderr.split())

    def test_plan_names_the_planted_heads_with_what_they_cost(self, clinic: Path) -> None:
        plan = Plan.from_yaml((clinic / "plan.yaml").read_text())
        assert tuple(str(head) for head in plan.operated) == PLANTED
        assert plan.fingerprint is not None
        assert plan.joint_cost is not None
        assert all(head.ablation_cost is not None for head in plan.heads)

    def test_operate_trains_the_planned_heads_and_leaves_a_patch(
        self, clinic: Path, results: dict[str, Result]
    ) -> None:
        metadata, _ = read_patch(clinic / PATCH)
        assert tuple(str(head) for head in Plan.from_yaml(metadata["plan"]).operated) == PLANTED
        assert json.loads((clinic / "run" / "run.json").read_text())["result"]["tokens"] == 1024
        assert "next: headsurgeon merge sick" in results["operate"].stdout

    def test_a_finished_run_is_recognised_and_asked_for_twice_is_the_same(
        self, clinic: Path
    ) -> None:
        before = slices(clinic / PATCH)
        again = run("operate", *STEPS["operate"])
        assert again.exit_code == 0
        assert_same(slices(clinic / PATCH), before)

    def test_evaluate_compares_before_and_after_with_intervals(
        self, clinic: Path, results: dict[str, Result]
    ) -> None:
        scores = json.loads((clinic / "scores.json").read_text())
        assert scores["recovery"]["operated"] == 2
        assert set(scores["evaluations"]) == {"sick", "with patch.safetensors", "healed"}
        assert len(scores["differences"]) == 3
        assert scores["ablation"]["joint"].keys() == {"value", "low", "high"}
        assert sum(scores["drift"]["transitions"]["operated"].values()) == 2
        assert "window 32, stride 31" in results["evaluate"].stdout
        assert "of 2 heads" in results["evaluate"].stdout

    def test_merge_writes_a_checkpoint_that_from_pretrained_loads(self, clinic: Path) -> None:
        merged = AutoModelForCausalLM.from_pretrained(clinic / "repaired")
        tokenizer = AutoTokenizer.from_pretrained(clinic / "repaired")
        assert tokenizer("ab").input_ids[0] == 0
        stock = load_file(clinic / "sick" / "model.safetensors")
        changed = {
            name
            for name, tensor in merged.state_dict().items()
            if name in stock and not torch.equal(tensor, stock[name])
        }
        assert changed
        assert all(name.startswith("transformer.h.1.self_attention") for name in changed)

    def test_merging_again_replaces_the_checkpoint_and_leaves_nothing_beside_it(
        self, clinic: Path
    ) -> None:
        before = sorted(path.name for path in clinic.iterdir())
        assert run("merge", *STEPS["merge"]).exit_code == 0
        assert sorted(path.name for path in clinic.iterdir()) == before


def test_the_limits_of_the_verdicts_can_be_chosen_and_are_recorded(clinic: Path) -> None:
    limits = ("--sink", "0.9999", "--dead", "0.99995", "--low-entropy", "0")
    assert run("diagnose", "sick", *READING, "--output", "strict", *limits).exit_code == 0
    strict = Diagnosis.load(clinic / "strict" / "diagnosis.json")
    assert strict.sick == ()
    assert strict.counts["low-entropy"] == 0
    assert strict.thresholds.model_dump() == {"sink": 0.9999, "dead": 0.99995, "low_entropy": 0.0}


def test_limits_out_of_order_are_refused_before_anything_is_loaded(clinic: Path) -> None:
    limits = ("--sink", "0.9", "--dead", "0.5")
    said = run("diagnose", "no-such-model", *READING, "--output", "bad", *limits)
    assert said.exit_code == 2
    assert "sink ≤ dead" in said.stderr
    assert not (clinic / "bad").exists()


def test_a_model_compared_with_itself_keeps_both_figures_and_differs_by_nothing(
    clinic: Path, results: dict[str, Result]
) -> None:
    arguments = ("sick", "--baseline", "sick", *READING, "--output", "same.json")
    assert run("evaluate", *arguments).exit_code == 0
    scores = json.loads((clinic / "same.json").read_text())
    assert set(scores["evaluations"]) == {"sick", "sick (baseline)"}
    (change,) = scores["differences"].values()
    assert change == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_help_says_defaults_of_settings_in_words() -> None:
    said = " ".join(run("operate", "--help").stdout.replace("│", " ").split())
    for words in ("Default none.", "Default off.", "Default 0.0.", "Default 0.", "Default 1.0."):
        assert words in said
    assert "Default ()" not in said
    assert "Default False" not in said


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(
    clinic: Path, results: dict[str, Result]
) -> None:
    place = ("--output", "elsewhere", "--dry-run")
    said = run("operate", "sick", "--plan", "plan.yaml", "--corpus", CORPUS, *TRAINING, *place)
    assert said.exit_code == 0, said.stderr
    assert "4 steps of 256 tokens" in said.stdout
    flat = " ".join(said.stdout.split())
    parts = (
        r"peak above the weights ([\d.,]+) MB: training step ([\d.,]+) MB, evaluation ([\d.,]+) MB"
    )
    found = re.search(parts, flat)
    assert found is not None, flat
    peak, training, evaluation = map(float, found.groups())
    assert peak == max(training, evaluation) > 0
    assert re.search(r"the weights take [\d.,]+ MB", flat)
    assert not (clinic / "elsewhere").exists()


def test_a_dry_run_without_an_estimate_says_why_and_prints_no_number(
    clinic: Path, results: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def untraceable(*ignored: object) -> None:
        raise OperationError("no sizes for aten.nonzero")

    # the module, which an attribute of the package would hide
    monkeypatch.setattr(import_module("headsurgeon.training.memory"), "memory_plan", untraceable)
    place = ("--output", "elsewhere", "--dry-run")
    said = run("operate", "sick", "--plan", "plan.yaml", "--corpus", CORPUS, *TRAINING, *place)
    assert said.exit_code == 0, said.stderr
    assert "not estimated: no sizes for aten.nonzero" in " ".join(said.stdout.split())
    assert "above the weights" not in said.stdout


def test_heads_that_do_work_are_operated_on_only_after_a_yes(
    clinic: Path, results: dict[str, Result]
) -> None:
    dear = re.sub(
        r"joint_cost: .*", "joint_cost: 0.3", (clinic / "plan.yaml").read_text(encoding="utf-8")
    )
    (clinic / "dear.yaml").write_text(dear, encoding="utf-8")
    wanted = ("sick", "--plan", "dear.yaml", "--corpus", CORPUS, *TRAINING)
    refused = run("operate", *wanted, "--output", "dear")
    assert refused.exit_code == 2
    assert "0.3000 nats" in refused.stderr
    assert "--yes" in refused.stderr
    assert "--rule idle" in refused.stderr
    assert not (clinic / "dear").exists()
    assert run("operate", *wanted, "--output", "dear", "--yes").exit_code == 0


def test_a_head_added_by_hand_is_priced_before_it_is_operated_on(
    clinic: Path, results: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (clinic / "plan.yaml").read_text(encoding="utf-8") + "- {head: L2H1}\n"
    text = re.sub(r"fingerprint: .*", "fingerprint: null", text)
    (clinic / "longer.yaml").write_text(text, encoding="utf-8")
    asked = []

    def cost(model: object, windows: object, mode: str, on_windows: object) -> object:
        def of(heads: tuple[object, ...]) -> float:
            asked.append(len(heads))
            return 1.0

        return of

    # the package, not the function of the same name
    monkeypatch.setattr(import_module("headsurgeon.evaluation"), "ablation_cost", cost)
    wanted = ("sick", "--plan", "longer.yaml", "--corpus", CORPUS, *TRAINING, "--output", "longer")
    assert run("operate", *wanted).exit_code == 2
    assert asked == [3]


def test_a_control_that_only_trains_needs_no_yes(clinic: Path, results: dict[str, Result]) -> None:
    text = (clinic / "plan.yaml").read_text(encoding="utf-8")
    for line in ("init: none", "output_start: keep_output", "joint_cost: 0.3"):
        text = re.sub(rf"^{line.split(':')[0]}: .*", line, text, flags=re.MULTILINE)
    (clinic / "control.yaml").write_text(text, encoding="utf-8")
    wanted = ("sick", "--plan", "control.yaml", "--corpus", CORPUS, *TRAINING)
    assert run("operate", *wanted, "--output", "control", "--dry-run").exit_code == 0


def test_a_stopped_run_says_how_to_go_on_and_goes_on(
    clinic: Path, results: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*ignored: object) -> None:
        raise KeyboardInterrupt

    wanted = (*STEPS["operate"][: -len(TRAINING) - 1], "stopped", *TRAINING)
    with monkeypatch.context() as patched:
        patched.setattr("headsurgeon.cli.progress.show_step", stop)
        stopped = run("operate", *wanted)
    assert stopped.exit_code == 1
    assert "resumes from there" in stopped.stderr
    assert not (clinic / "stopped" / "patch.safetensors").exists()
    assert run("operate", *wanted).exit_code == 0
    assert_same(slices(clinic / "stopped" / "patch.safetensors"), slices(clinic / PATCH))


@pytest.mark.parametrize(
    ("options", "heads"),
    [
        (("--heads", "L0H1,L2H3"), ["L0H1", "L2H3"]),
        (("--column", "2", "--layers", "1-2"), ["L1H2", "L2H2"]),
        (("--band", "3-3"), ["L1H3"]),
        (("--rule", "idle", "--max-cost", "9", "--cost-count", "2"), list(PLANTED)),
    ],
)
def test_plan_chooses_by_the_rule_its_options_ask_for(
    clinic: Path, results: dict[str, Result], options: tuple[str, ...], heads: list[str]
) -> None:
    said = run("plan", "out/diagnosis.json", *options, "--no-costs", "-o", "p.yaml", "--overwrite")
    assert said.exit_code == 0, said.stderr
    plan = Plan.from_yaml((clinic / "p.yaml").read_text(encoding="utf-8"))
    assert [str(head) for head in plan.operated] == heads


def test_zoo_says_that_the_collapse_is_planted() -> None:
    said = run("zoo")
    assert "zoo:bloom-mini-collapsed" in said.stdout
    assert "PLANTED" in said.stdout


def test_every_command_has_an_example_in_its_help() -> None:
    for name in EXAMPLES:
        said = run(name, "--help")
        assert said.exit_code == 0
        assert "Example:" in said.stdout
        assert f"headsurgeon {name}" in said.stdout
        assert "--debug" in said.stdout


def test_operate_has_an_option_for_every_training_setting() -> None:
    from headsurgeon.training import TrainSettings

    said = run("operate", "--help").stdout
    for name in TrainSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in said


def test_the_version_is_the_packages() -> None:
    from importlib.metadata import version

    lines = run("--version").stdout.splitlines()
    assert lines[0] == f"headsurgeon {version('headsurgeon')}"
    # what a bug report needs, of packages that are not imported for it
    for name in ("torch", "transformers", "numpy"):
        assert f"{name} {version(name)}" in lines
    assert lines[1].startswith("Python 3.")
    assert "matplotlib" in lines[-1]


def test_the_overview_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from headsurgeon.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"diagnose" in done.stdout


def test_an_unexpected_failure_is_one_line_and_a_traceback_only_with_debug(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headsurgeon.cli.zoo.out", lambda: 1 / 0)
    quiet, loud = run("zoo"), run("zoo", "--debug")
    assert quiet.exit_code == loud.exit_code == 1
    assert quiet.stderr.count("\n") == 1
    assert "ZeroDivisionError" in quiet.stderr
    assert "run again with --debug" in quiet.stderr
    assert "Traceback" in loud.stderr


def test_ctrl_c_outside_a_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("headsurgeon.cli.zoo.out", stop)
    said = run("zoo")
    assert said.exit_code == 130
    assert said.stderr == "error: interrupted\n"


def test_a_guarded_command_keeps_its_own_options() -> None:
    def command(first: int, second: str = "b") -> None: ...

    assert list(inspect.signature(guarded(command)).parameters) == ["first", "second", "debug"]


@pytest.mark.parametrize(
    ("text", "expected"), [("9-15", (9, 15)), ("5", (5, 5)), ("9–15", (9, 15)), (None, None)]
)
def test_ranges_include_both_ends(text: str | None, expected: tuple[int, int] | None) -> None:
    assert first_last(text, "--band") == expected


@pytest.mark.parametrize("text", ["a-b", "-3", "3-", "", "1-2-3"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="expected a range"):
        first_last(text, "--band")


def test_durations_are_readable() -> None:
    assert [duration(5), duration(65), duration(3665)] == ["0:05", "1:05", "1:01:05"]


def map_of(heads: int, width: int) -> list[str]:
    verdicts = np.full((2, heads), "healthy", dtype=object)
    verdicts[0, -1], verdicts[1, -1], verdicts[1, 0] = "dead", "sink", "low-entropy"
    mass = np.linspace(0.0, 1.0, 2 * heads).reshape(2, heads)
    unsure = np.zeros((2, heads), dtype=bool)
    unsure[1, -1] = True
    slopes = 2.0 ** -np.arange(1.0, heads + 1)
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(HeadMap(mass, verdicts, unsure, slopes))
    return console.export_text().splitlines()


@pytest.mark.parametrize("heads", [4, 16, 32, 71])
def test_the_map_is_readable_without_colour_and_never_wider_than_the_terminal(heads: int) -> None:
    lines = map_of(heads, width=100)
    assert max(len(line) for line in lines) <= 100
    text = "\n".join(lines)
    assert text.count("S?") == 1
    body = "\n".join(line for line in lines if line.startswith("L"))
    assert (body.count("D"), body.count("E")) == (1, 1)


def test_published_counts_stand_beside_ones_own_for_the_papers_model(
    clinic: Path, results: dict[str, Result]
) -> None:
    diagnosis = Diagnosis.load(clinic / "out" / "diagnosis.json")
    reported = counts_table(diagnosis, reported_diagnosis("bigscience/bloom-1b7"))
    assert [str(column.header) for column in reported.columns][-1] == "reported"
    assert list(reported.columns[-1].cells)[1].plain == "136"
    assert len(counts_table(diagnosis).columns) == 3
