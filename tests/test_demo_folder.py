"""The demo's folder: gone on with, written anew, or refused; never at the cost of anything else."""

import json
from pathlib import Path
from typing import Any

import pytest

from headsurgeon import files, folders
from headsurgeon.demo.pipeline import PARTS, _prepare, _replaceable
from headsurgeon.demo.record import RECORD, write_start
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.errors import HeadsurgeonError, OutputError

SETTINGS = DemoSettings()


def finished(folder: Path) -> Path:
    """A folder as a finished demo leaves it."""
    for name in ("runs/surgery/run.json", "figures/loss.png", "merged/config.json", "summary.html"):
        files.write_text(folder / name, name)
    content = {
        **files.header("demo"),
        "finished": True,
        "settings": SETTINGS.to_dict(),
        "files": folders.manifest_of(folder, PARTS),
    }
    files.write_json(folder / RECORD, content)
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_demo_is_cleared_and_what_lies_beside_it_stays(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    _prepare(tmp_path, SETTINGS)
    assert {path.name for path in tmp_path.iterdir()} == {RECORD, "thesis.tex"}
    assert json.loads((tmp_path / RECORD).read_text())["finished"] is False


@pytest.mark.parametrize(
    "name",
    [
        "figures/mine.svg",
        "runs/notes.txt",
        "runs/surgery/.git/HEAD",
        "merged/README.md",
        "summary.html",
        "figures/loss.png",
    ],
)
def test_what_the_user_added_or_changed_is_named_before_anything_is_touched(
    tmp_path: Path, name: str
) -> None:
    path = finished(tmp_path) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=name):
        _prepare(tmp_path, SETTINGS)
    assert snapshot(tmp_path) == before


def test_a_link_in_place_of_a_folder_of_ours_is_not_followed(tmp_path: Path) -> None:
    finished(tmp_path / "out")
    (tmp_path / "out" / "figures").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="figures"):
        _prepare(tmp_path / "out", SETTINGS)
    assert (tmp_path / "elsewhere" / "loss.png").exists()


def test_an_interrupted_demo_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    write_start(tmp_path, SETTINGS)
    files.write_text(tmp_path / "runs" / "surgery" / "run.json", "half")
    _prepare(tmp_path, SETTINGS)
    with pytest.raises(OutputError, match="interrupted demo with other settings"):
        _replaceable(tmp_path, DemoSettings(model="another"))
    assert (tmp_path / "runs" / "surgery" / "run.json").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"finished": "yes"},
        {"finished": 1},
        {"settings": []},
        {"settings": None},
        {"files": ["runs"]},
        {"files": {"runs/x": 1}},
        {"files": {"../thesis.tex": "0"}},
        {"files": {"/etc/hosts": "0"}},
        {"schema": "one"},
        {"kind": {}},
    ],
)
def test_a_demo_json_that_was_edited_is_an_error_in_words(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    finished(tmp_path)
    content = json.loads((tmp_path / RECORD).read_text())
    (tmp_path / RECORD).write_text(json.dumps({**content, **change}))
    before = snapshot(tmp_path)
    with pytest.raises(HeadsurgeonError) as caught:
        _prepare(tmp_path, SETTINGS)
    assert caught.value.exit_code == 2
    assert RECORD in str(caught.value)
    assert snapshot(tmp_path) == before
