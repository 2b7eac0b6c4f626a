"""The shape of the code: one-way imports, short files, a report that needs no torch."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "headsurgeon"
MAX_LINES = 400

# A module imports from its own entry and from those before it.
ORDER = [
    "errors",
    "printable",
    "heads",
    "temporaries",
    "files",
    "locks",
    "folders",
    "scores",
    "arch",
    "models",
    "data",
    "attention",
    "measurement",
    "diagnosis",
    "planning",
    "operation",
    "evaluation",
    "training",
    "study",
    "report",
    "demo",
    "cli",
]
# `Plan.to_yaml` and `Plan.from_yaml` are methods of the data class by name only: they hand over to
# the module that knows the file format, when they are called.
EXCEPTIONS = {("heads", "planning")}

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


def entry(path: Path) -> str:
    """The part of the package a file belongs to, as `ORDER` names it."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def upward(path: Path, tree: ast.Module) -> list[str]:
    """What a file imports from parts of the package that stand after its own."""
    own = entry(path)
    allowed = set(ORDER[: ORDER.index(own) + 1])
    names = (name.split(".") for name in imported(path, tree))
    parts = {name[1] for name in names if name[0] == "headsurgeon" and len(name) > 1}
    return sorted(part for part in parts - allowed if (own, part) not in EXCEPTIONS)


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
