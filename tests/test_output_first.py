"""An output that cannot be written is found before a model is loaded, and results come first."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headsurgeon.cli.outputs import check_file
from headsurgeon.cli.outputs import check_folder as check_folder_of
from headsurgeon.errors import HeadsurgeonError, OutputError
from tests.clinic import run

LONG = "x" * 300


def check_folder(place: Path) -> None:
    check_folder_of(place, "run.json")


# a model that is not there: whoever asks for it first has not looked at the output
CORPUS = ("--corpus", "text:none/*.txt")
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "diagnose": (("no/model", *CORPUS, "--output"), ""),
    "diagnose of two": (("no/model", "no/other", *CORPUS, "--output"), ""),
    "evaluate": (("no/model", *CORPUS, "--output"), ".json"),
    "inspect": (("no/model", "L0H0", "--text", "a b", "--output"), ".png"),
    "plan": (("no/diagnosis.json", "-o"), ".yaml"),
    "merge": (("no/model", "--patch", "no.safetensors", "--output"), ""),
    "operate": (("no/model", "--plan", "no.yaml", *CORPUS, "--output"), ""),
    "demo": (("--model", "no/model", "--output"), ""),
}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_looks_at_its_output_before_anything_else(command: str, places: Path) -> None:
    arguments, ending = COMMANDS[command]
    for place in (f"file/out{ending}", f"{LONG}{ending}", f"file/a/b{ending}", f"a\0b{ending}"):
        said = run(command.split()[0], *arguments, place)
        assert said.exit_code == 2, (place, said.stderr)
        assert "no/model" not in said.stderr
        assert "no/diagnosis" not in said.stderr
        assert "\0" not in said.stderr
    assert sorted(path.name for path in places.iterdir()) == ["file"]


@pytest.mark.parametrize("check", [check_file, check_folder])
def test_what_can_be_written_passes_and_leaves_nothing(
    check: Callable[[Path], None], places: Path
) -> None:
    for place in ("new", "a/b/c", "ä b", "-o", "n" * 200):
        check(Path(place))
    assert sorted(path.name for path in places.iterdir()) == ["file"]


@pytest.mark.parametrize(
    ("check", "place"),
    [
        (check_file, "."),
        (check_file, os.devnull),
        (check_file, "n" * 250),
        (check_file, "/".join(["d" * 200] * 25)),
        (check_folder, "file"),
        (check_folder, os.devnull),
        (check_folder, "/proc/none"),
        (check_file, "/proc/none.json"),
        (check_file, "loop/out.json"),
        (check_folder, "lone\ud800"),
    ],
)
def test_what_cannot_be_written_is_refused(
    check: Callable[[Path], None], place: str, places: Path
) -> None:
    (places / "loop").symlink_to("loop")
    with pytest.raises(OutputError):
        check(Path(place))


def test_a_failing_print_does_not_lose_what_was_computed(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headsurgeon.cli import evaluate as module
    from tests.clinic import READING, checkpoint, sick_bloom, write_text

    checkpoint(places / "sick", sick_bloom())
    write_text(places / "docs")

    def fail(*_: object) -> None:
        raise HeadsurgeonError("the printer is on fire")

    monkeypatch.setattr(module, "heading", fail)
    said = run("evaluate", "sick", *READING, "--output", "scores.json")
    assert said.exit_code == 1
    assert (places / "scores.json").exists()


def test_a_picture_that_fails_loses_no_diagnosis(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headsurgeon.cli import compare
    from tests.clinic import READING, checkpoint, sick_bloom, write_text
    from tests.pico import pico

    checkpoint(places / "sick", sick_bloom())
    checkpoint(places / "healed", pico("bloom"))
    write_text(places / "docs")

    def fail(*_: object) -> None:
        raise HeadsurgeonError("no ink")

    monkeypatch.setattr(compare, "comparison_figure", fail)
    said = run("diagnose", "sick", "healed", *READING, "--output", "both")
    assert said.exit_code == 1
    for name in ("sick/diagnosis.json", "healed/diagnosis.json"):
        assert (places / "both" / name).exists()
