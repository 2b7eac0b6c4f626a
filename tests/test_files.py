"""Files are whole or absent, and say what they are."""

import errno
import json
import math
import os
from pathlib import Path

import pytest

from headsurgeon import files, folders
from headsurgeon.errors import InputError, OutputError, WriteError


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_previous_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    files.write_json(path, {"kept": 1})
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(WriteError, match="No space left"):
        files.write_json(path, {"lost": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    def half() -> None:
        with files.replacing(tmp_path / "new") as temporary:
            temporary.write_text("half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half"):
        half()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        files.write_text(tmp_path / "file" / "below", "text")


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    files.write_text(tmp_path / "ours", "x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nan_becomes_null_in_json(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    files.write_json(path, {**files.header("x"), "value": math.nan, "list": [math.inf, 1.0]})
    assert json.loads(path.read_text())["value"] is None
    assert files.read_json(path, "x")["list"] == [None, 1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ('{"kind": "plan"}', "expected a headsurgeon diagnosis file, found plan"),
        ("[1]", "found none"),
        ('{"kind": "diagnosis", "schema": 99}', "newer headsurgeon"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "d.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        files.read_json(path, "diagnosis")


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        files.read_json(tmp_path / "none.json", "diagnosis")


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(OutputError, match="something else"):
        folders.claim_folder(tmp_path, "run.json")
    with pytest.raises(OutputError, match="is a file"):
        folders.claim_folder(tmp_path / "thesis.tex", "run.json")


def test_a_new_an_empty_and_an_own_folder_are_accepted(tmp_path: Path) -> None:
    folder = folders.claim_folder(tmp_path / "a" / "b", "run.json")
    folders.claim_folder(folder, "run.json")
    (folder / "run.json").write_text("{}")
    (folder / "more").write_text("")
    assert folders.claim_folder(folder, "run.json") == folder


def test_hash_depends_on_where_one_text_ends() -> None:
    assert files.sha256_text(["ab", "c"]) != files.sha256_text(["a", "bc"])


def test_log_lines_are_appended(tmp_path: Path) -> None:
    append = files.append_line(tmp_path / "log.jsonl")
    append({"step": 1, "loss": 2.0})
    append({"step": 2, "loss": math.nan})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [2.0, None]
    with pytest.raises(WriteError):
        files.append_line(tmp_path)({"step": 1})


def test_a_kind_of_two_words_is_read_as_earlier_versions_spelled_it(tmp_path: Path) -> None:
    files.write_json(tmp_path / "new.json", files.header("paired_runs"))
    files.write_json(tmp_path / "old.json", files.header("paired_runs") | {"kind": "paired-runs"})
    for name in ("new.json", "old.json"):
        assert files.read_json(tmp_path / name, "paired_runs")["schema"] == 1
