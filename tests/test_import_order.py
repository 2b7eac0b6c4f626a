"""The shape of the code: one-way imports, short files, a report that needs no torch."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "headsurgeon"
MAX_LINES = 400

# A module imports from its own entry and from those before it.
ORDER = [
    "errors",
    "extras",
    "private_names",
    "private_torch",
    "private_transformers",
    "printable",
    "attention_kinds",
    "heads",
    "temporaries",
    "files",
    "arguments",
    "records",
    "results",
    "head_stats",
    "yaml_lines",
    "locks",
    "folders",
    "bootstrap",
    "own_files",
    "scores",
    "paper",
    "arch",
    "models",
    "data",
    "attention",
    "measurement",
    "diagnosis",
    "monitoring",
    "starts",
    "planning",
    "operation",
    "evaluation",
    "training",
    "passes",
    "study",
    "report",
    "cli",
    "__main__",
]

FILES = sorted(SOURCE.rglob("*.py"))
IDS = [path.relative_to(SOURCE).as_posix() for path in FILES]


def imported(path: Path, tree: ast.Module) -> Iterator[str]:
    """Full dotted names of all that a file imports, also inside functions."""
    package = ["headsurgeon", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parent, node.module] if node.module else parent)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> Path | None:
    """The file in which a dotted name of the package lies; a face hands over to its stub."""
    parts = name.split(".")[1:]
    for length in range(len(parts), -1, -1):
        place = SOURCE.joinpath(*parts[:length])
        if length and place.with_suffix(".py").is_file():
            return place.with_suffix(".py")
        if place.is_dir() and length < len(parts):
            return bound_by(place / "__init__.pyi").get(parts[length])
    return None


@cache
def bound_by(stub: Path) -> dict[str, Path]:
    """For each name of a face, the file it comes from."""
    if not stub.is_file():
        return {}
    nodes = ast.parse(stub.read_text(encoding="utf-8")).body
    return {
        alias.asname or alias.name: stub.parent.joinpath(*node.module.split(".")).with_suffix(".py")
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def imports_of(path: Path) -> set[Path]:
    """The files of the package that a file imports, anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = {name for name in imported(path, tree) if name.split(".")[0] == "headsurgeon"}
    return {found for name in ours if (found := module_of(name)) is not None} - {path}


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {path: imports_of(path) for path in FILES}
    # of what it imports nothing is left but what is itself in a circle, or imports one
    while free := [path for path, names in graph.items() if not names & graph.keys()]:
        for path in free:
            del graph[path]
    assert {path.relative_to(SOURCE).as_posix() for path in graph} == set()


def test_names_are_traced_through_faces_to_files() -> None:
    assert module_of("headsurgeon.operation.Patient") == SOURCE / "operation" / "patient.py"
    assert module_of("headsurgeon.operation.patient.Patient") == SOURCE / "operation" / "patient.py"
    assert module_of("headsurgeon.planning.plan") == SOURCE / "planning" / "plan.py"
    assert module_of("headsurgeon.files") == SOURCE / "files.py"
    assert SOURCE / "files.py" in imports_of(SOURCE / "planning" / "plan.py")


def entry(path: Path) -> str:
    """The part of the package a file belongs to, as `ORDER` names it."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def upward(path: Path, tree: ast.Module) -> list[str]:
    """What a file imports from parts of the package that stand after its own."""
    own = entry(path)
    allowed = set(ORDER[: ORDER.index(own) + 1])
    names = (name.split(".") for name in imported(path, tree))
    parts = {name[1] for name in names if name[0] == "headsurgeon" and len(name) > 1}
    return sorted(parts - allowed)


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_go_one_way(path: Path) -> None:
    if path == SOURCE / "__init__.py":
        # the public names come from everywhere, when they are first used
        return
    assert entry(path) in ORDER
    assert upward(path, ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", sorted((SOURCE / "report").rglob("*.py")), ids=lambda p: p.name)
def test_the_report_never_names_torch(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not {"torch", "transformers"} & {name.split(".")[0] for name in imported(path, tree)}


@pytest.mark.parametrize(
    "statement",
    [
        "from headsurgeon.training.loop import train",
        "import headsurgeon.training.loop",
        "from headsurgeon import training",
        "from ..training import loop",
        "from .. import training",
        "def late():\n    from headsurgeon.training import loop",
    ],
)
def test_an_import_from_below_is_found_in_every_spelling(statement: str) -> None:
    assert upward(SOURCE / "measurement" / "example.py", ast.parse(statement)) == ["training"]


@pytest.mark.parametrize(
    "statement",
    [
        "from headsurgeon.heads import HeadId",
        "from headsurgeon.measurement.stats import measure",
        "from . import stats",
        "from ..arch import layout",
        "import torch",
    ],
)
def test_imports_from_above_and_from_outside_are_fine(statement: str) -> None:
    assert upward(SOURCE / "measurement" / "example.py", ast.parse(statement)) == []
