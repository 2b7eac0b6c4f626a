"""Output folders: one process at a time, never refused for ever, nothing lost that is not ours."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from headsurgeon import files, folders, temporaries
from headsurgeon.errors import InputError, OutputError, WriteError
from headsurgeon.locks import LOCK

WRITER = """
import os, signal, sys
from pathlib import Path
from headsurgeon import files, folders
folder, moment = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
with folders.locked(folder, "run.json"):
    if moment == "locked":
        die()
    if moment == "held":
        print("held", flush=True)
        sys.stdin.read()
    if moment in ("fsync", "replace"):
        setattr(os, moment, die)
    if moment == "staging":
        with folders.staging(folder) as staged:
            (staged / "weights").write_bytes(b"half")
            die()
    files.write_json(folder / "run.json", files.header("run"))
    os.fsync = die
    (folder / "below").mkdir()
    files.write_text(folder / "below" / "late", "text")
"""


def killed(folder: Path, moment: str) -> None:
    done = subprocess.run([sys.executable, "-c", WRITER, str(folder), moment], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("moment", ["locked", "fsync", "staging", "late"])
def test_a_folder_is_claimed_again_after_a_kill_and_nothing_of_it_stays(
    tmp_path: Path, moment: str
) -> None:
    folder = tmp_path / "out"
    killed(folder, moment)
    assert [path for path in folder.rglob("*") if path.name.startswith(".")]
    with folders.locked(folder, "run.json"):
        left = {path.name for path in folder.rglob("*")} - {LOCK}
        assert left == ({"run.json", "below"} if moment == "late" else set())
    assert not (folder / LOCK).exists()


@pytest.mark.parametrize("name", [".demo.json.k3x_9abq", ".diagnosis.json.zzzzzzzz"])
def test_what_earlier_versions_left_half_written_is_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{")
    with folders.locked(tmp_path, "demo.json"):
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", [".gitignore", ".thesis.tex.original", ".demo.json.hs-1-2-3"])
def test_hidden_files_of_the_user_are_not_taken_for_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match="something else"), folders.locked(tmp_path, "demo.json"):
        pass
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / "demo.json").write_text("{}")
    with folders.locked(tmp_path, "demo.json"):
        pass
    assert (tmp_path / name).read_text() == "mine"


def test_two_processes_never_work_in_one_folder_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / "out")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out"), "held"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {other.pid} works in"):
            folders.locked(tmp_path / "alias", "run.json").__enter__()
        other.kill()
    with folders.locked(tmp_path / "alias", "run.json"):
        pass


def test_what_a_living_process_writes_beside_us_stays(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "table.csv") as temporary:
        assert temporaries.is_temporary(temporary.name)
        with folders.locked(tmp_path, "run.json"):
            assert temporary.exists()
        temporary.write_text("whole")
    assert (tmp_path / "table.csv").read_text() == "whole"


def test_a_half_written_file_goes_when_its_path_is_written_again(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from headsurgeon import files\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_text(sys.argv[1], 'x')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    files.write_text(tmp_path / "b.json", "other")
    assert len(list(tmp_path.iterdir())) == 2
    files.write_text(tmp_path / "a.json", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "b.json"}


def test_another_thread_is_refused_and_the_same_one_may_claim_again(tmp_path: Path) -> None:
    found: list[BaseException] = []

    def other() -> None:
        try:
            with folders.locked(tmp_path, "run.json"):
                pass
        except OutputError as error:
            found.append(error)

    with folders.locked(tmp_path, "run.json"):
        with folders.locked(tmp_path, "run.json"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread" in str(found[0])


def test_a_failed_call_leaves_no_folder_and_no_parent_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), folders.locked(tmp_path / "a" / "b", "run.json"):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_links_that_lead_nowhere_pipes_and_impossible_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for path in ("dangling", "loop", "pipe", "nul\0", "n" * 300, "pipe/below"):
        with pytest.raises(OutputError), folders.locked(tmp_path / path, "run.json"):
            pass
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("mask", [0o002, 0o027])
def test_what_is_written_follows_the_umask_and_the_folder(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        tmp_path.chmod(0o2775)
        with folders.locked(tmp_path / "out", "run.json") as folder, folders.staging(folder) as new:
            assert new.stat().st_mode & 0o777 == 0o777 & ~mask
            with files.replacing(new / "weights") as temporary:
                # a library that writes a private file of its own
                temporary.unlink()
                os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
            assert (new / "weights").stat().st_mode & 0o777 == 0o666 & ~mask
            assert new.stat().st_gid == tmp_path.stat().st_gid
    finally:
        os.umask(before)


def test_a_link_is_followed_and_no_device_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path / "loop", tmp_path / "a\0b"):
        with pytest.raises(WriteError, match="cannot write"):
            files.write_text(path, "x")


def earlier(folder: Path) -> dict[str, str]:
    """A folder as we wrote it before, with its marker."""
    (folder / "part").mkdir(parents=True)
    (folder / "config.json").write_text("old")
    (folder / "part" / "old.bin").write_text("old")
    manifest = folders.manifest_of(folder)
    files.write_json(folder / "m.json", {**files.header("m"), "files": manifest})
    return manifest


def fresh(staged: Path) -> None:
    (staged / "config.json").write_text("new")
    (staged / "new.bin").write_text("new")
    manifest = folders.manifest_of(staged)
    files.write_json(staged / "m.json", {**files.header("m"), "files": manifest})


def test_only_what_we_wrote_and_nobody_changed_is_replaced(tmp_path: Path) -> None:
    manifest = earlier(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref")
    with pytest.raises(OutputError, match=r"\.git/HEAD was not written by headsurgeon"):
        folders.check_own(tmp_path, manifest, ignoring=["m.json"])
    (tmp_path / ".git" / "HEAD").unlink()
    (tmp_path / "config.json").write_text("edited")
    with pytest.raises(OutputError, match=r"config\.json was changed"):
        folders.check_own(tmp_path, manifest, ignoring=["m.json"])


def test_a_replacement_is_whole(tmp_path: Path) -> None:
    manifest = earlier(tmp_path)
    folders.check_own(tmp_path, manifest, ignoring=["m.json"])
    with folders.locked(tmp_path, "m.json"), folders.staging(tmp_path) as staged:
        fresh(staged)
        folders.replace_own(staged, tmp_path, "m.json", manifest, "config.json")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["config.json", "m.json", "new.bin"]
    found = folders.read_manifest(tmp_path, "m.json")
    assert found == folders.manifest_of(tmp_path, ["config.json", "new.bin"])


@pytest.mark.parametrize("nth", range(6))
def test_a_replacement_that_fails_half_way_brings_back_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    manifest = earlier(tmp_path)
    count = 0
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == nth + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(path, target)

    with folders.locked(tmp_path, "m.json"), folders.staging(tmp_path) as staged:
        fresh(staged)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", failing)
            if nth < 5:
                with pytest.raises(WriteError, match="what was there stays"):
                    folders.replace_own(staged, tmp_path, "m.json", manifest, "config.json")
            else:
                folders.replace_own(staged, tmp_path, "m.json", manifest, "config.json")
    now = folders.read_manifest(tmp_path, "m.json")
    assert now is not None
    folders.check_own(tmp_path, now, ignoring=["m.json"])
    if nth < 5:
        assert now == folders.manifest_of(tmp_path, manifest) == manifest


@pytest.mark.parametrize(
    "content",
    [
        b'{"kind": "run", "schema": "1"}',
        b'{"kind": "run", "schema": true}',
        b'{"kind": "run", "schema": 1.0}',
        b'{"kind": "run", "schema": ' + b"9" * 5000 + b"}",
        b'{"kind": "run", "schema": 1, "seed": 99999999999999999999}',
        b'{"kind": "run", "schema": 1, "x": ' + b"[" * 100_000,
        b'{"kind": "run", "schema": 1, "x": ' + b"[" * 99 + b"]" * 99 + b"}",
        b'{"kind": "run", "schema": 1, "loss": NaN}',
        b'{"kind": "run", "schema": 1, "loss": [1e999]}',
        b'{"kind": "run", "schema": 1, "schema": 1}',
        b'{"kind": ["run"], "schema": 1}',
        b"\xff\xfe{\x00}\x00",
        b'{"kind": "r\xe9un"}',
        b"",
        b"null",
    ],
)
def test_a_file_that_is_not_as_we_write_it_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        files.read_json(path, "run")
    assert "run.json" in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(files.header("run")), encoding="utf-8-sig")
    assert files.read_json(tmp_path / "r.json", "run")["schema"] == 1


def test_pipes_folders_devices_and_impossible_names_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    odd = (tmp_path / "pipe", tmp_path, "/dev/zero", tmp_path / "a\0b", tmp_path / ("n" * 4999))
    for path in odd:
        with pytest.raises(InputError, match="cannot read") as caught:
            files.read_json(path, "run")
        assert len(str(caught.value)) < 500


def test_a_name_that_is_not_text_costs_no_result(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    files.write_json(tmp_path / "r.json", {**files.header("run"), "corpus": name})
    assert files.read_json(tmp_path / "r.json", "run")["corpus"] == name


def test_a_source_tree_that_is_not_installed_has_a_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        raise files.PackageNotFoundError(name)

    monkeypatch.setattr(files, "version", missing)
    assert files.header("run")["headsurgeon"][0].isdigit()
