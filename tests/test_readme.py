"""Every block of README.md is run: on a pico model at once, on the model it names where slow.

The first run shows that commands, options, file names and the labels of what is printed are those
of the README; the slow one that whole texts are.
"""

import re
import shlex
from pathlib import Path

import pytest

from tests.clinic import checkpoint, run, sick_bloom, write_text

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL, CORPUS = "zoo:bloom-mini-collapsed", "package:sympy"
SMALL = ("--length", "32", "--count", "24")
# a row that a result has only sometimes, and what a terminal alone shows
SOMETIMES = {"borderline", "notes", "…"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def session() -> list[tuple[list[str], str]]:
    """The commands of the console blocks in their order, each with what it is shown to print."""
    found = []
    for block in blocks("console"):
        command, _, shown = block.replace("\\\n", " ").partition("\n")
        assert command.startswith("$ headsurgeon ")
        assert "\n$" not in shown
        found.append((shlex.split(command)[2:], shown))
    return found


def labels(shown: str) -> set[str]:
    """What stands at the beginning of each row of a table or of a list of facts."""
    rows = re.findall(r"^(\S+(?: \S+)*?) {2,}\S", shown, flags=re.MULTILINE)
    return {row for row in rows if not re.search(r"\d|━|\.", row)} - SOMETIMES


def plain(text: str) -> str:
    """A text whose figures and line breaks do not count, nor how wide its columns are."""
    return re.sub(r"\s+", " ", re.sub(r"[-+−]?\d+(?:[.,]\d+)*", "#", text)).strip()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_session_by_hand_runs_and_prints_what_it_is_shown_to_print(home: Path) -> None:
    checkpoint(home / "pico", sick_bloom())
    write_text(home / "docs")
    stands_for = {MODEL: "pico", CORPUS: "text:docs/*.txt"}
    commands = [words[0] for words, _ in session()]
    assert commands == ["diagnose", "plan", "operate", "evaluate", "merge"]
    for words, shown in session():
        size = SMALL if words[0] in ("diagnose", "evaluate") else ()
        budget = ("--length", "32", "--max-tokens", "512") if words[0] == "operate" else ()
        said = run(*(stands_for.get(word, word) for word in words), *size, *budget)
        assert said.exit_code == 0, said.output
        absent = {label for label in labels(shown) if f"\n{label} " not in f"\n{said.stdout}"}
        assert absent - {MODEL} == set(), said.stdout
        for step in re.findall(r"^next: headsurgeon (\w+)", shown, flags=re.MULTILINE):
            assert f"next: headsurgeon {step} " in said.stdout
    assert {path.name for path in (home / "repaired").iterdir()} >= {"model.safetensors"}


@pytest.mark.slow
def test_the_session_by_hand_prints_its_text_word_by_word(home: Path) -> None:
    for words, shown in session():
        said = run(*words)
        assert said.exit_code == 0, said.output
        # a bar of progress is drawn on terminals alone; … stands for rows that are left out
        lines = [line for line in shown.splitlines(keepends=True) if "━" not in line]
        for part in "".join(lines).split("…"):
            assert plain(part) in plain(said.output)


def run_python(block: str) -> None:
    """Executes a block of Python of our own README."""
    exec(compile(block, "README.md", "exec"), {})


def small(block: str) -> str:
    """The block on the pico model, each of its figures replaced by a small one."""
    for figure, less in {
        f'"{MODEL}"': '"pico"',
        f'"{CORPUS}"': '"text:docs/*.txt"',
        "length=256": "length=32",
        "count=64": "count=16",
        "max_tokens=200_000": "max_tokens=512, length=32",
    }.items():
        assert figure in block
        block = block.replace(figure, less)
    return block


def test_the_python_block_runs(home: Path) -> None:
    checkpoint(home / "pico", sick_bloom())
    write_text(home / "docs")
    [block] = blocks("python")
    run_python(small(block))
    assert (home / "runs" / "first" / "patch.safetensors").is_file()


@pytest.mark.slow
def test_the_python_block_runs_as_it_stands(home: Path) -> None:
    [block] = blocks("python")
    run_python(block)
    assert (home / "runs" / "first" / "patch.safetensors").is_file()


def test_every_target_of_make_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = set(re.findall(r"`make ([\w-]+)|^make ([\w-]+)", README, flags=re.MULTILINE))
    assert {first or second for first, second in named} <= targets
    assert len(named) >= 3


@pytest.mark.slow
def test_the_demo_prints_its_text_word_by_word(home: Path) -> None:
    shown = next(block for block in blocks("text") if block.startswith("Loss on"))
    said = run("demo", "--output", "demo")
    assert said.exit_code == 0, said.output
    for paragraph in shown.split("\n\n"):
        assert plain(paragraph) in plain(said.output)
