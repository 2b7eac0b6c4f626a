"""README: its Python runs, on a pico model at once and as it stands where slow; it stays short."""

import re
from pathlib import Path

import pytest

from headsurgeon.arch import FAMILIES
from tests.clinic import checkpoint, sick_bloom, write_text
from tests.documented import PAGES, ROOT, blocks, run_python

README = ROOT / "README.md"
FIGURES = {
    '"zoo:bloom-mini-collapsed"': '"pico"',
    '"package:sympy"': '"text:docs/*.txt"',
    "length=256": "length=32",
    "count=64": "count=16",
    "max_tokens=200_000": "max_tokens=1536, length=32",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(text: str) -> str:
    """The block on the pico model, each of its figures replaced by a small one."""
    for figure, less in FIGURES.items():
        assert figure in text
        text = text.replace(figure, less)
    return text


WHOLE_WAYS = [
    pytest.param("\n".join(block.text for block in blocks(page, "python")), id=page.name)
    for page in (README, ROOT / "docs" / "from_python.md")
]


@pytest.mark.parametrize("code", WHOLE_WAYS)
def test_the_whole_way_in_python_runs(code: str, home: Path) -> None:
    checkpoint(home / "pico", sick_bloom())
    write_text(home / "docs")
    run_python(small(code), "whole way", {})
    assert (home / "runs" / "first" / "patch.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("code", WHOLE_WAYS)
def test_the_whole_way_in_python_runs_as_it_stands(code: str, home: Path) -> None:
    run_python(code, "whole way", {})
    assert (home / "runs" / "first" / "patch.safetensors").is_file()


def test_the_number_of_architectures_is_right() -> None:
    for page in (README, ROOT / "docs" / "index.md"):
        counted = f"BLOOM, MPT and ALiBi-Falcon checkpoints and {len(FAMILIES) - 3} other decoder"
        assert counted in page.read_text("utf-8")


def test_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 100


def test_every_target_of_make_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for page in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text = page.read_text("utf-8")
        named = set(re.findall(r"`make ([\w-]+)|^make ([\w-]+)", text, flags=re.MULTILINE))
        assert {first or second for first, second in named} <= targets, page
