"""The package as a user meets it: its version, its names, and what importing it costs."""

import ast
import importlib
import json
import os
import pickle
import pkgutil
import pydoc
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import headsurgeon

ROOT = Path(__file__).parents[1]
HEAVY = ["accelerate", "datasets", "matplotlib", "pandas", "torch", "transformers"]
PACKAGES = sorted(found.name for found in pkgutil.iter_modules(headsurgeon.__path__) if found.ispkg)
FACES = [name for name in PACKAGES if name != "cli"]


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


def test_packages_are_nouns_so_no_function_is_hidden_by_one() -> None:
    packages = {found.name for found in pkgutil.iter_modules(headsurgeon.__path__)}
    assert not packages & set(dir(headsurgeon))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="reanimate"):
        _ = headsurgeon.reanimate


def test_the_installed_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version("headsurgeon") == project["version"]


def test_the_citation_is_of_this_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert f"version: {version('headsurgeon')}" in lines


def test_the_lowest_versions_that_are_tested_are_those_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installed = re.findall(r"^ENDS = -e \"\.\[(.*)\]\"$", makefile, re.MULTILINE)[0].split(",")
    # demo and test bring these two along
    installed += ["report", "datasets"]
    allowed = [*project["dependencies"], *(bound for name in installed for bound in extras[name])]
    bounds = {bound.partition(",")[0].replace(">=", "==") for bound in allowed if ">=" in bound}
    lines = (ROOT / "lowest.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if not line.startswith("#")} == bounds


def test_versions_that_were_tried_are_within_those_that_are_allowed() -> None:
    from headsurgeon import private_torch, private_transformers

    lines = (ROOT / "lowest.txt").read_text(encoding="utf-8").splitlines()
    for listed in (private_torch, private_transformers):
        (lowest,) = (line.partition("==")[2] for line in lines if line.startswith(listed.PACKAGE))
        assert listed.TESTED[0].startswith(lowest)


def jobs_of(workflow: str) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow of continuous integration."""
    text = (ROOT / ".github" / "workflows" / workflow).read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["jobs"])


def test_pythons_that_are_named_are_those_that_must_pass_in_continuous_integration() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r":: Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">={named[0]}"
    matrix = jobs_of("test.yml")["test"]["strategy"]["matrix"]
    assert matrix["python"] == named
    assert all(more["untried"] for more in matrix["include"])


def test_what_is_built_and_checked_is_so_on_a_python_that_was_tried() -> None:
    tried = {*jobs_of("test.yml")["test"]["strategy"]["matrix"]["python"], "${{ matrix.python }}"}
    for job in (*jobs_of("test.yml").values(), *jobs_of("release.yml").values()):
        given = [step.get("with", {}).get("python-version") for step in job["steps"]]
        assert {python for python in given if python} <= tried


# --- faces ---------------------------------------------------------------------------------------


def bound(stub: Path) -> list[str]:
    """The names that a stub binds."""
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return sorted(alias.asname or alias.name for node in imports for alias in node.names)


@pytest.mark.parametrize("name", ["", *FACES])
def test_public_names_are_exactly_what_the_face_binds_and_all_resolve(name: str) -> None:
    face = importlib.import_module(f"headsurgeon.{name}".rstrip("."))
    assert sorted(face.__all__) == bound(Path(str(face.__file__)).with_suffix(".pyi"))
    assert set(face.__all__) <= set(dir(face))
    for public in face.__all__:
        value = getattr(face, public)
        assert not isinstance(value, ModuleType)
        # hs.measure is the function, whatever was imported before
        importlib.import_module(f"headsurgeon.{name}".rstrip("."))
        assert getattr(face, public) is value


def test_no_submodule_hides_a_name_of_its_face() -> None:
    for name in FACES:
        face = importlib.import_module(f"headsurgeon.{name}")
        modules = {found.name for found in pkgutil.iter_modules(face.__path__)}
        assert not modules & set(face.__all__), name


def test_faces_of_packages_load_no_heavy_library() -> None:
    names = ", ".join(f"headsurgeon.{name}" for name in FACES)
    assert heavy_modules_after(f"import {names}") == []
    assert heavy_modules_after("from headsurgeon.training import TrainSettings") == []


def test_every_spelling_of_an_import_finds_the_same() -> None:
    import headsurgeon.evaluation as evaluation
    import headsurgeon.training.loop
    from headsurgeon.evaluation import evaluate

    assert evaluation.evaluate is evaluate is headsurgeon.evaluate
    assert headsurgeon.training.loop.train is headsurgeon.train


@pytest.mark.parametrize(
    "path", ["headsurgeon.measure", "headsurgeon.training.loop.train", "headsurgeon.Plan.to_yaml"]
)
def test_names_are_located_by_their_path(path: str) -> None:
    found = pydoc.locate(path)
    assert callable(found)
    assert pydoc.render_doc(found)


@pytest.mark.parametrize("name", ["measure", "evaluate", "Plan", "HeadId", "Diagnosis"])
def test_public_names_can_be_pickled(name: str) -> None:
    value = getattr(headsurgeon, name)
    assert pickle.loads(pickle.dumps(value)) is value


CHECKED = """\
from typing import assert_type

import headsurgeon as hs
import headsurgeon.evaluation as ev
import headsurgeon.training.loop


def use(model: object, stats: hs.HeadStats, plan: hs.Plan) -> None:
    assert_type(hs.diagnose(stats), hs.Diagnosis)
    assert_type(plan.to_yaml(), str)
    hs.measure(1)
    ev.evaluate(1)
    headsurgeon.training.loop.train(1)
    hs.nowhere
"""


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_see_the_same(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker)
    (tmp_path / "use.py").write_text(CHECKED, encoding="utf-8")
    words = [sys.executable, "-m", checker, str(tmp_path / "use.py")]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src"), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
    said = done.stdout + done.stderr
    lines = {int(found) for found in re.findall(r"use\.py:(\d+):(?:\d+)?.*error", said)}
    # what is wrong there, and nothing else: the functions are known with their arguments
    assert lines == {11, 12, 13, 14}, said


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headsurgeon", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()[0]) == (0, "headsurgeon")
    assert done.stderr == ""
