"""How commands load a model: memory limits, few bits, revisions, code that comes with it."""

import json
from importlib import import_module
from pathlib import Path

import pytest
from transformers import BitsAndBytesConfig

from headsurgeon.cli import option_texts, options
from headsurgeon.cli.loading import open_model
from headsurgeon.errors import PatchError, SettingsError
from headsurgeon.models import load
from headsurgeon.operation import read_patch
from tests.clinic import READING, checkpoint, run, sick_bloom, write_text

# room for the embeddings and one layer of the three
LIMIT = ("--max-memory", "70KB")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loading")
    checkpoint(folder / "sick", sick_bloom())
    write_text(folder / "docs")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert run("diagnose", "sick", *READING, "--output", "whole").exit_code == 0
        said = run("plan", "whole", "--rule", "sick", "--no-costs", "-o", "plan.yaml")
        assert said.exit_code == 0, said.stderr
    return folder


@pytest.fixture(autouse=True)
def inside(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clinic)


def test_under_a_memory_limit_diagnosis_plan_and_evaluation_come_out_the_same() -> None:
    said = run("diagnose", "sick", *READING, *LIMIT, "--output", "limited")
    assert said.exit_code == 0, said.stderr
    assert Path("limited/heads.csv").read_bytes() == Path("whole/heads.csv").read_bytes()
    assert Path("limited/layers.csv").read_bytes() == Path("whole/layers.csv").read_bytes()
    said = run("plan", "limited", "--rule", "sick", "--no-costs", *LIMIT, "-o", "limited.yaml")
    assert said.exit_code == 0, said.stderr
    assert Path("limited.yaml").read_text() == Path("plan.yaml").read_text()
    losses = []
    for limit in ((), LIMIT):
        said = run(
            "evaluate", "sick", *READING, *limit, "--plan", "plan.yaml", "--output", "e.json"
        )
        assert said.exit_code == 0, said.stderr
        losses.append(json.loads(Path("e.json").read_text()))
    assert losses[0] == losses[1]


def test_what_changes_weights_takes_no_memory_limit(clinic: Path) -> None:
    """There is no such option, and a patch is refused before anything is measured or written."""
    assert "--max-memory" not in run("operate", "--help").stdout
    assert "--max-memory" not in run("merge", "--help").stdout
    from headsurgeon.models import load
    from headsurgeon.operation import operate
    from headsurgeon.planning import Plan

    operate(load("sick")[0], Plan.load("plan.yaml")).save("patch.safetensors")
    before = sorted(Path().rglob("*"))
    reading = (*READING, *LIMIT, "--output", "new.json")
    said = run("evaluate", "sick", "--patch", "patch.safetensors", *reading)
    assert said.exit_code == 2
    assert "is not in memory (offloaded)" in said.stderr
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "value"), [("--max-memory", "much"), ("--max-memory", "2"), ("--quantise", "3bit")]
)
def test_what_is_no_limit_is_refused_with_an_example(option: str, value: str) -> None:
    said = run("diagnose", "sick", *READING, option, value, "--output", "new")
    assert said.exit_code == 2
    assert f"{option}: expected" in said.stderr
    assert value in said.stderr
    assert not Path("new").exists()


def test_limits_are_for_the_cpu_or_by_device() -> None:
    assert option_texts.memory_limits("2GB") == {"cpu": "2GB"}
    assert option_texts.memory_limits("0=20gib, cpu=1.5 GB") == {0: "20GiB", "cpu": "1.5GB"}
    with pytest.raises(SettingsError, match="0=20GB,cpu=8GB"):
        option_texts.memory_limits("0:20GB")


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_few_bits_reach_the_loader(monkeypatch: pytest.MonkeyPatch, bits: str) -> None:
    asked: list[object] = []

    def load(spec: str, **settings: object) -> None:
        asked.append(settings["quantization_config"])

    monkeypatch.setattr(import_module("headsurgeon.models"), "load", load)
    open_model("sick", options.FrozenLoading(quantise=bits))
    [config] = asked
    assert isinstance(config, BitsAndBytesConfig)
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == "8bit", bits == "4bit")


def test_code_that_comes_with_a_model_takes_the_option(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint(tmp_path / "with-code", sick_bloom())
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}
    config["model_type"] = "bloom-of-our-own"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from transformers import BloomConfig, BloomForCausalLM\n"
        "class Own(BloomConfig):\n"
        "    model_type = 'bloom-of-our-own'\n"
        "class Model(BloomForCausalLM):\n"
        "    config_class = Own\n"
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    said = run("diagnose", folder, *READING, "--output", "own")
    assert said.exit_code == 2
    assert "--trust-remote-code" in said.stderr
    said = run("diagnose", folder, *READING, "--output", "own", "--trust-remote-code")
    # run, and its architecture is one that nobody described
    assert said.exit_code == 2
    assert "no layout for architecture 'bloom-of-our-own'" in said.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpu=1GB,cpu=2GB", "cpu is given twice"),
        ("0=1GB,0=2GB", "0 is given twice"),
        ("1GB,CPU=2GB", "cpu is given twice"),
        ("gpu=1GB", "no device 'gpu'"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        option_texts.memory_limits(text)


def test_a_limit_for_a_gpu_that_is_not_there_is_refused_before_the_model_is_looked_for() -> None:
    with pytest.raises(SettingsError, match="there is no GPU 9999 on this machine"):
        load("no/such-model", max_memory={9999: "1GB", "cpu": "1GB"})


@pytest.mark.parametrize("device", ["meta", "xla", "cuda:9999", "nowhere", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device: str) -> None:
    with pytest.raises(SettingsError, match=r"cannot be used on this machine, which has cpu"):
        load("no/such-model", device=device)


def test_a_folder_of_two_spellings_is_not_compared_with_itself() -> None:
    said = run("diagnose", "sick", "./sick", *READING, "--output", "both")
    assert said.exit_code == 2
    assert "named more than once" in said.stderr


def test_a_run_folder_given_for_its_patch_is_told_from_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "patch.safetensors").touch()
    with pytest.raises(PatchError, match=r"is a folder.*patch\.safetensors may be meant"):
        read_patch(tmp_path)
