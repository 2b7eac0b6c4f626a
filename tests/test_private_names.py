"""Private names of torch and transformers: all listed, all there, and told by version if not."""

import ast
from collections.abc import Iterator
from importlib.metadata import version

import pytest

from headsurgeon import private_torch, private_transformers
from headsurgeon.cli import versions
from headsurgeon.private_names import PrivateName, missing
from tests.clinic import run
from tests.test_import_order import FILES, SOURCE

LISTED = (*private_torch.NAMES, *private_transformers.NAMES)
# os._exit, of Python itself
OTHERS = {"_exit"}


def test_nothing_is_missing_in_the_versions_that_are_installed() -> None:
    assert versions.broken() == []


def used_names(tree: ast.Module) -> Iterator[str]:
    """Private names that a file imports of torch and transformers, and private attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                path = f"{node.module}.{alias.name}"
                private = any(part.startswith("_") for part in path.split("."))
                if path.split(".")[0] in ("torch", "transformers") and private:
                    yield path.rpartition(".")[2]
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            if not ours and not node.attr.startswith("__"):
                yield node.attr


def test_every_private_name_in_use_is_listed() -> None:
    listed = {name.path.rpartition(".")[2] for name in LISTED} | OTHERS
    unlisted = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in FILES
        for name in used_names(ast.parse(path.read_text(encoding="utf-8")))
        if name not in listed
    }
    assert unlisted == set()


def test_everything_listed_is_in_use() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in FILES if not path.name.startswith("private_t")
    )
    assert [name.path for name in LISTED if name.path.rpartition(".")[2] not in sources] == []


def test_the_sentence_names_version_use_and_what_to_install() -> None:
    gone = PrivateName("torch._nothing.Here", "memory estimate (training/live_memory.py)")
    (said,) = missing("torch", [gone], ("2.9.0", "2.14.1"))
    assert said.startswith(f"torch {version('torch')} has no torch._nothing.Here, which memory")
    assert "tested with torch 2.9.0 to 2.14.1: install one of these" in said
    assert not list(missing("torch", [PrivateName("torch.ops.aten._no", "x", True)], ("1", "2")))


def test_a_command_that_fails_for_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise AttributeError("module 'torch' has no attribute 'x'")

    monkeypatch.setattr("headsurgeon.models.catalogue.ZOO", property(lambda self: fail()))
    monkeypatch.setattr(versions, "broken", lambda: ["torch 9 has no torch.x"])
    said = run("zoo")
    assert said.exit_code == 1
    assert "torch 9 has no torch.x" in said.stderr
