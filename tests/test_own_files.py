"""What a command replaces is what we wrote before, and nothing of the user's."""

import os
from pathlib import Path

import pytest

from headsurgeon.errors import OutputError
from headsurgeon.folders import LIST, check_claimable, locked
from headsurgeon.own_files import check_own_files, writing
from tests.clinic import READING, checkpoint, run, sick_bloom, write_text

MARKER = "diagnosis.json"


def write(folder: Path, **contents: str) -> None:
    with locked(folder, MARKER), writing(folder, MARKER) as staged:
        for name, content in contents.items():
            (staged / name.replace("_", ".")).write_text(content)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    write(folder, diagnosis_json="{}", heads_csv="a", layers_csv="b")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_was_written_before_is_replaced_and_what_is_not_written_again_goes(
    written: Path,
) -> None:
    (written / "notes.txt").write_text("mine")
    write(written, diagnosis_json="{ }", heads_csv="c")
    assert names(written) == [LIST, MARKER, "heads.csv", "notes.txt"]
    assert (written / "heads.csv").read_text() == "c"
    assert (written / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["heads.csv", "layers.csv", MARKER])
def test_what_was_edited_since_stays_and_is_named(place: str, written: Path) -> None:
    (written / place).write_text("edited")
    before = {name: (written / name).read_bytes() for name in names(written)}
    with pytest.raises(OutputError, match=f"{place} was changed since"):
        write(written, diagnosis_json="{ }", heads_csv="c")
    assert {name: (written / name).read_bytes() for name in names(written)} == before


def test_a_file_of_such_a_name_from_somewhere_else_stays(written: Path) -> None:
    (written / "new.csv").write_text("mine")
    with pytest.raises(OutputError, match=r"new\.csv was not written by headsurgeon"):
        check_own_files(written, ("new.csv",))
    with pytest.raises(OutputError, match=r"new\.csv was not written by headsurgeon"):
        write(written, diagnosis_json="{ }", new_csv="ours")
    assert (written / "new.csv").read_text() == "mine"


def test_a_link_in_place_of_a_file_of_ours_is_not_followed(written: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("a")
    (written / "heads.csv").unlink()
    (written / "heads.csv").symlink_to(tmp_path / "theirs")
    with pytest.raises(OutputError, match=r"heads\.csv was changed since"):
        write(written, diagnosis_json="{}", heads_csv="c")
    assert (tmp_path / "theirs").read_text() == "a"


def test_a_kill_at_any_rename_leaves_a_folder_that_is_accepted_and_ends_in_the_new_files(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    stock = Path.rename
    for survived in range(7):
        left = [survived]

        def rename(self: Path, target: Path, left: list[int] = left) -> Path:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return stock(self, target)

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", rename)
            with pytest.raises(Killed):
                write(written, diagnosis_json=f"{survived}", heads_csv="c", layers_csv="d")
        check_claimable(written, MARKER)
        write(written, diagnosis_json="{}", heads_csv="a", layers_csv="b")
        assert names(written) == [LIST, MARKER, "heads.csv", "layers.csv"]


def test_the_folder_of_one_command_is_not_anothers_though_its_marker_is_gone(
    written: Path,
) -> None:
    (written / MARKER).unlink()
    check_claimable(written, MARKER)
    with pytest.raises(OutputError, match="holds something else"):
        check_claimable(written, "run.json")


@pytest.mark.parametrize("content", ["[]", "{", '{"files": 3}', '{"files": {"../x": "1"}}'])
def test_a_list_that_was_damaged_is_an_error_in_words(content: str, written: Path) -> None:
    (written / LIST).write_text(content)
    with pytest.raises(OutputError):
        check_own_files(written, (MARKER,))


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("sick"), sick_bloom())
    write_text(Path("docs"))
    return tmp_path


def test_diagnose_says_before_measuring_that_a_file_was_edited_and_lists_only_its_own(
    clinic: Path,
) -> None:
    said = run("diagnose", "sick", *READING, "--output", "found")
    assert said.exit_code == 0, said.stderr
    Path("found/heads.csv").write_text("my own columns")
    said = run("diagnose", "sick", *READING, "--output", "found")
    assert said.exit_code == 2
    assert "heads.csv was changed since" in said.stderr
    assert "loading" not in said.stderr
    assert Path("found/heads.csv").read_text() == "my own columns"
    Path("found/heads.csv").rename("found/mine.csv")
    said = run("diagnose", "sick", *READING, "--output", "found")
    assert said.exit_code == 0, said.stderr
    assert "written to found: diagnosis.json, heads.csv, layers.csv\n" in said.stdout


@pytest.mark.parametrize("place", ["maps.png", "bloom/layers.csv", "bloom"])
def test_a_comparison_says_before_measuring_what_is_not_its_own(place: str, clinic: Path) -> None:
    checkpoint(Path("bloom"), sick_bloom(seed=1))
    if place == "bloom":
        Path("both/bloom").mkdir(parents=True)
        Path("both/comparison.json").write_text("{}")
        Path("both/bloom/thesis.tex").write_text("mine")
    else:
        said = run("diagnose", "sick", "bloom", *READING, "--output", "both")
        assert said.exit_code == 0, said.stderr
        Path("both", place).write_text("mine")
    said = run("diagnose", "sick", "bloom", *READING, "--output", "both")
    assert said.exit_code == 2
    assert "measuring" not in said.stderr
    kept = Path("both", place, "thesis.tex") if place == "bloom" else Path("both", place)
    assert kept.read_text() == "mine"
