"""Without an optional package each feature that takes it says which command brings it."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import headsurgeon as hs
from headsurgeon.data import documents
from headsurgeon.errors import MissingPackage
from headsurgeon.extras import EXTRAS, require
from headsurgeon.study.engines import Task, run_tasks
from headsurgeon.study.results import Cell
from tests.clinic import checkpoint, run, sick_bloom, write_text
from tests.pico import pico
from tests.test_train_loop import PLAN

ROOT = Path(__file__).parents[1]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "pico", sick_bloom())
    write_text(tmp_path / "docs")
    return tmp_path


def run_engine(engine: str) -> Callable[[], None]:
    cell = Cell("untouched", "code", 0)
    return lambda: run_tasks(engine, Path("study"), [Task(cell)], lambda task: None)


FUNCTIONS: dict[str, Callable[[], object]] = {
    "datasets": lambda: list(documents("hf:somebody/texts")),
    "gguf": lambda: hs.load("model.gguf"),
    "peft": lambda: hs.open_lora(pico("bloom"), PLAN),
    "submitit": run_engine("slurm"),
    "ray": run_engine("ray"),
}
READ = ("--corpus", "text:docs/*.txt", "--length", "16", "--count", "2")
COMMANDS: dict[str, tuple[str, ...]] = {
    "matplotlib": ("inspect", "pico", "L0H0", "--text", "a b c", "--output", "head.png"),
    "matplotlib, several": ("diagnose", "pico", "pico", *READ, "--output", "sick"),
    "matplotlib, figures": ("figures", "study"),
    "jinja2": ("report", "study"),
    "bitsandbytes": ("diagnose", "pico", *READ, "--output", "sick", "--quantise", "8bit"),
}


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a package look as if it had never been installed, and what imports it as new."""
    for name in list(sys.modules):
        if name.startswith(("headsurgeon.report.", f"{package}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("package", FUNCTIONS)
def test_a_function_names_the_command(
    package: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "model.gguf").write_bytes(b"GGUF")
    hide(package, monkeypatch)
    with pytest.raises(MissingPackage) as told:
        FUNCTIONS[package]()
    assert f'{package}; run: pip install "headsurgeon[{EXTRAS[package]}]"' in str(told.value)


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_names_it_before_it_works(
    case: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = case.partition(",")[0]
    hide(package, monkeypatch)
    said = run(*COMMANDS[case])
    assert said.exit_code == 2, said.output
    assert f'{package}; run: pip install "headsurgeon[{EXTRAS[package]}]"' in said.stderr
    assert not (home / "sick").exists()


def test_a_public_name_says_so_when_it_is_first_used() -> None:
    code = "import sys\nsys.modules['jinja2'] = None\nimport headsurgeon as hs\nhs.write_report"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        'MissingPackage: this needs the package jinja2; run: pip install "headsurgeon'
        in (done.stderr.splitlines()[-1])
    )


def test_what_is_installed_is_let_through() -> None:
    require("matplotlib", "a picture")


def test_every_package_is_in_the_extra_that_is_named_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert any(line.startswith(f"{package}>=") for line in extras[extra]), package
        assert not any(line.startswith(f"{package}>=") for line in project["dependencies"])
