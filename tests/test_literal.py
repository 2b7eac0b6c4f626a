"""What others wrote comes out as written: no formatting, no control characters, no formulas."""

import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from headsurgeon.cli import console
from headsurgeon.cli.attention_map import AttentionMap
from headsurgeon.cli.compare import comparison_figure, summary
from headsurgeon.cli.compare_table import comparison_table
from headsurgeon.cli.guard import guarded
from headsurgeon.cli.progress import add_run, new_bar
from headsurgeon.cli.screen import command_line, next_step, python_text
from headsurgeon.cli.study_terminal import StudyTerminal, show_sentence, show_table
from headsurgeon.cli.summary import show_diagnosis
from headsurgeon.diagnosis import Diagnosis, diagnose
from headsurgeon.errors import ModelError
from headsurgeon.printable import printable
from headsurgeon.report import (
    MassPanel,
    Page,
    Section,
    Table,
    mass_histogram,
    render,
)
from headsurgeon.report.attention_figure import attention_figure
from headsurgeon.report.data import KeyFigure
from headsurgeon.report.style import png
from tests.clinic import examined, run
from tests.head_stats import stats_of

NAMES = [
    "[red]x[/x]",
    "[/INST]",
    ":smile:train:",
    "\x1b]0;owned\x07",
    "\x9b31mred",
    "a\u202eb\u2066",
    "two\nnext: rm -rf",
    "back\rcolumn\ttab",
    r"$x_{^\frac",
    "$a$ _b_ \\q",
    "lone\udc80\ud800",
    "日本 {task}",
    "\U000e0041tag\u200b",
]


def named(name: str) -> Diagnosis:
    found = diagnose(stats_of(np.random.default_rng(0).random((4, 2, 4))))
    source = found.stats.provenance.replace(model=name, corpus=name, first_token=name)
    return found.replace(stats=found.stats.replace(provenance=source))


def showing(name: str) -> dict[str, Callable[[], object]]:
    """Every renderer of the command line, given a name."""

    def bar() -> None:
        with new_bar() as progress:
            add_run(progress, name)

    def fail(kind: type[Exception]) -> Callable[[], object]:
        def command() -> None:
            raise kind(name)

        def shown() -> None:
            with pytest.raises(typer.Exit):
                guarded(command)(debug=kind is RuntimeError)

        return shown

    def study() -> None:
        terminal = StudyTerminal(Path(name.replace("\0", "")))
        terminal.prepared(name, None)
        terminal.prepared(name, 3)
        terminal.close()
        show_sentence(name)
        show_table(Table("key", name, ("", name), ((name, "1 [no interval]"),), name))

    say = console.out().print
    lines = [summary(examined(named(each))) for each in (name, "b")]
    return {
        "str": lambda: say(f"\nwritten to {name}"),
        "heading": lambda: say(console.heading(name)),
        "table": lambda: say(console.table([name, name], [[name, name]])),
        "facts": lambda: say(console.facts({name: name})),
        "summary": lambda: show_diagnosis(named(name)),
        "compare": lambda: say(comparison_table(lines, [None, None])),
        "attention map": lambda: say(AttentionMap(np.eye(2), [name, name])),
        "bar": bar,
        "error": fail(ModelError),
        "traceback": fail(RuntimeError),
        "study": study,
        "next": lambda: console.show_next("plan", name, "--corpus", name),
    }


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_shown_literally_by_all_that_print(
    name: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for what in showing(name):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        showing(name)[what]()
        stream.flush()
        text = stream.buffer.getvalue().decode(encoding)
        strange = [char for char in text if char != "\n" and not char.isprintable()]
        assert not strange, (what, strange)
        assert not re.search("^next: rm", text, re.MULTILINE), what
        if name.isprintable() and name.isascii() and what not in ("attention map", "next"):
            assert name in text, what


def test_what_cannot_be_seen_is_spelled_out() -> None:
    assert printable("a\x1b[1m\u202e\nb\udc80") == "a\\x1b[1m\\u202e\\nb\\udc80"
    assert printable("Grüße, 日本") == "Grüße, 日本"


WORDS = [
    *NAMES,
    "-leading",
    "--",
    "with blank 'and' \"quotes\"",
    "text:~/a b/*.txt,hf:d::train:x",
    "$HOME `id` !! \\",
    "",
    "ä\u00a0ö",
    "it's\x1b\\",
]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_a_hint_is_read_back_as_what_it_names(word: str, encoding: str) -> None:
    line = command_line("headsurgeon", word, "--output", word, encoding=encoding)
    assert line.isprintable()
    line.encode(encoding)
    if word.isprintable() and (encoding == "utf-8" or word.isascii()):
        assert shlex.split(line) == ["headsurgeon", word, "--output", word]
    raw = word.encode("utf-8", "surrogatepass" if "\ud800" in word else "surrogateescape")
    show = "import os, sys; os.write(1, b'|'.join(map(os.fsencode, sys.argv[1:])))"
    bash = ["bash", "-c", f"{shlex.quote(sys.executable)} -S -c {shlex.quote(show)} {line}"]
    assert subprocess.run(bash, capture_output=True, check=True).stdout == b"|".join(
        [b"headsurgeon", raw, b"--output", raw]
    )
    literal = python_text(word, encoding)
    literal.encode(encoding)
    assert eval(literal) == word


def test_a_subject_that_looks_like_an_option_stands_behind_two_dashes() -> None:
    assert next_step("plan", "-x/d.json", "-o", "-p") == "headsurgeon plan -o -p -- -x/d.json"
    assert next_step("plan", "x", "-o", "p") == "headsurgeon plan x -o p"


def test_a_complaint_about_the_command_line_quotes_it_literally() -> None:
    said = run("diagnose", "--\x1b]0;x\x07")
    assert said.exit_code == 2
    assert "\x1b]" not in said.stderr
    assert r"\x1b" in said.stderr
    said = run("\x1b]0;x\x07")
    assert "\x1b]" not in said.stderr


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_in_a_figure_is_neither_formula_nor_failure(name: str) -> None:
    values = np.full(3, 0.2)
    figures = {
        "maps": comparison_figure([examined(named(name)), examined(named("b"))]),
        "attention": attention_figure(np.eye(2), [name, "b"], title=name, footnote=name),
        "histogram": mass_histogram(
            [MassPanel.of(name, values, values)], title=name, footnote=name
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in figures.values():
            assert png(figure).startswith(b"\x89PNG")


def test_dollars_in_a_title_are_drawn_as_dollars() -> None:
    literal = attention_figure(np.eye(2), ["a", "b"], title="$a$")
    png(literal)
    titled = literal.get_suptitle()
    assert titled == "$a$"
    assert not any(text.get_parse_math() for text in literal.texts)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_page_holds_no_control_characters(name: str) -> None:
    table = Table("key", name, (name, name), ((name, name),), name)
    section = Section(name, (name,), tables=(table,))
    figures = (KeyFigure(name, name, name),)
    page = Page(name, (name,), (section,), name, figures, facts={name: name}, command=name)
    text = render(page)
    text.encode("utf-8")
    assert all(char.isprintable() or char in "\n\t" for char in text)
    assert "<img src=x" not in text


def test_a_full_disk_behind_stdout_is_told_in_one_line() -> None:
    code = "from headsurgeon.cli.main import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "zoo"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write to standard output: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_ends_nothing() -> None:
    code = (
        "from headsurgeon.cli.console import out\n"
        "for _ in range(9): out().print('x' * 99999)\n"
        "open(3, 'w').write('done')"
    )
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} 3>&2 2>/dev/null | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "done")


def test_help_is_written_in_an_encoding_that_lacks_its_signs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from headsurgeon.cli.main import main; main()", "--help"],
        env={"PYTHONIOENCODING": "ascii", "PATH": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    done.stdout.decode("ascii")
