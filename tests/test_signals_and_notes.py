"""What is no error and still has to be known, and what asks a command to end."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import headsurgeon as hs
from headsurgeon.cli.guard import guarded
from headsurgeon.errors import HeadsurgeonWarning, PlanError
from tests.clinic import run
from tests.pico import pico, tokens
from tests.pico_families import pico_family


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_command_that_is_asked_to_end_tidies_up(tmp_path: Path, name: str, code: int) -> None:
    program = (
        "import os, signal\n"
        "from headsurgeon.cli import zoo\n"
        "from headsurgeon.files import replacing\n"
        "def ended():\n"
        "    with replacing('result.json'):\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "zoo.out = ended\n"
        "from headsurgeon.cli.main import main\nmain()\n"
    )
    words = [sys.executable, "-c", program, "zoo"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code
    assert f"stopped by {name}" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_handlers_are_what_they_were_and_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run("zoo").exit_code == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_our_warnings_are_notes_and_those_of_libraries_are_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command() -> None:
        warnings.warn("12 documents are copies [red]", HeadsurgeonWarning, stacklevel=1)
        warnings.warn("a library is about to change", FutureWarning, stacklevel=1)

    guarded(command)(debug=False)
    said = capsys.readouterr().err
    assert said == "note: 12 documents are copies [red]\n"


def test_copies_in_a_corpus_are_a_note_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.char_tokenizer import char_tokenizer

    monkeypatch.chdir(tmp_path)
    pico("bloom").save_pretrained("model")
    char_tokenizer().save_pretrained("model")
    for index in range(8):
        Path(f"copy{index}.txt").write_text("the same words in every file " * 20)
    (split,) = {hs.data.split_of(each.split_key) for each in hs.data.documents("text:copy*.txt")}
    reading = ("--length", "16", "--count", "8", "--split", split)
    said = run("evaluate", "model", "--corpus", "text:copy*.txt", *reading)
    assert said.exit_code == 0
    assert "note: 7 of 8 documents" in " ".join(said.stderr.split())


def test_a_diagnosis_of_another_model_makes_no_plan() -> None:
    diagnosis = hs.diagnose(hs.measure(pico("bloom"), tokens(2, 16)))
    chosen = {"rule": "heads", "heads": ["L0H0"]}
    hs.plan(diagnosis, model=pico("bloom"), **chosen)
    for other in (pico("bloom", layers=2), pico("mpt"), pico_family("llama")):
        with pytest.raises(PlanError, match="the model that was diagnosed"):
            hs.plan(diagnosis, model=other, **chosen)
