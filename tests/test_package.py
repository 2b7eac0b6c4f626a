"""The package as a user meets it: its version, its names, and what importing it costs."""

import json
import pkgutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import headsurgeon

ROOT = Path(__file__).parents[1]
HEAVY = ["accelerate", "datasets", "matplotlib", "pandas", "torch", "transformers"]
PUBLIC = [
    "HeadId",
    "HeadStats",
    "Plan",
    "ablate",
    "apply_patch",
    "diagnose",
    "drift",
    "evaluate",
    "load",
    "measure",
    "operate",
    "plan",
    "train",
    "windows",
]


def heavy_modules_after(statement: str) -> list[str]:
    """The heavy libraries that a fresh interpreter has loaded once it ran `statement`."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    return [name for name in HEAVY if name in loaded]


def test_importing_the_package_loads_no_heavy_library() -> None:
    assert heavy_modules_after("import headsurgeon") == []


def test_importing_the_command_line_loads_no_heavy_library() -> None:
    assert heavy_modules_after("import headsurgeon.cli.main") == []


def test_importing_the_report_does_not_load_torch() -> None:
    statement = (
        "import importlib, pkgutil, headsurgeon.report as report\n"
        "for found in pkgutil.walk_packages(report.__path__, 'headsurgeon.report.'):\n"
        "    importlib.import_module(found.name)"
    )
    assert not {"torch", "transformers"} & set(heavy_modules_after(statement))


def test_a_heavy_library_would_be_noticed() -> None:
    assert heavy_modules_after("import pandas") == ["pandas"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_listed_and_resolves(name: str) -> None:
    assert name in dir(headsurgeon)
    assert callable(getattr(headsurgeon, name))


def test_packages_are_nouns_so_no_function_is_hidden_by_one() -> None:
    packages = {found.name for found in pkgutil.iter_modules(headsurgeon.__path__)}
    assert not packages & set(dir(headsurgeon))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="reanimate"):
        _ = headsurgeon.reanimate


def test_the_installed_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version("headsurgeon") == project["version"]
