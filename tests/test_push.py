"""Uploading: what is shown is what goes, nothing goes unasked, and no path of this machine."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

from headsurgeon.models import load
from headsurgeon.operation import operate
from headsurgeon.planning import Plan
from tests.clinic import checkpoint, run
from tests.pico import pico
from tests.test_merge_as_stored import PLAN

COMMIT = "https://huggingface.co/owner/repaired/commit/1"


class FakeApi:
    """Takes the place of `huggingface_hub.HfApi` and keeps what it was told."""

    calls: tuple[Any, ...] = ()
    failure: Exception | None = None

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> None:
        if FakeApi.failure is not None:
            raise FakeApi.failure
        FakeApi.calls += (("create", repository, private, exist_ok),)

    def create_commit(self, repository: str, operations: list[Any], *, commit_message: str) -> Any:
        files = {operation.path_in_repo: operation.path_or_fileobj for operation in operations}
        FakeApi.calls += (("commit", repository, files, commit_message),)
        return SimpleNamespace(commit_url=COMMIT)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    FakeApi.calls, FakeApi.failure = (), None


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    base = checkpoint(tmp_path / "base", pico("bloom"))
    (base / "LICENSE").write_text("free")
    model, _ = load(str(base))
    plan = Plan(model=str(base), rule="heads", heads=PLAN.heads)
    return operate(model, plan, 3).save(tmp_path / "patch.safetensors")


@pytest.fixture
def merged(patch: Path, tmp_path: Path) -> Path:
    words = ("merge", str(tmp_path / "base"), "--patch", patch, "--output", "merged")
    said = run(*words)
    assert said.exit_code == 0, said.output
    return tmp_path / "merged"


def test_without_yes_everything_is_shown_and_nothing_is_done(merged: Path) -> None:
    said = run("push", merged, "owner/repaired")
    assert said.exit_code == 0, said.output
    for path in merged.iterdir():
        assert path.name in said.stdout
    assert "huggingface.co/owner/repaired (if new: private)" in said.stdout
    assert "nothing was uploaded" in said.stdout
    assert FakeApi.calls == ()


def test_with_yes_what_was_shown_goes_in_one_commit(merged: Path, tmp_path: Path) -> None:
    said = run("push", merged, "owner/repaired", "--yes", "--message", "first")
    assert said.exit_code == 0, said.output
    created, committed = FakeApi.calls
    assert created == ("create", "owner/repaired", True, True)
    _, repository, files, message = committed
    assert (repository, message) == ("owner/repaired", "first")
    assert set(files) == {path.name for path in merged.iterdir()}
    assert files["model.safetensors"] == str(merged / "model.safetensors")
    assert COMMIT in said.stdout
    marker = json.loads(files["headsurgeon.json"])
    assert (marker["model"], marker["patches"]) == ("base", ["patch.safetensors"])
    assert str(tmp_path).encode() not in files["plan.yaml"]
    assert str(tmp_path) not in (merged / "README.md").read_text()
    # here all of it is still known
    assert str(tmp_path) in (merged / "headsurgeon.json").read_text()


def test_hidden_files_stay_here(merged: Path) -> None:
    (merged / ".secret").write_text("x")
    run("push", merged, "owner/repaired", "--yes", "--public")
    assert ".secret" not in FakeApi.calls[1][2]
    assert FakeApi.calls[0][2] is False


def test_a_patch_goes_with_a_card_and_its_plan(tmp_path: Path) -> None:
    model = pico("bloom")
    named = Plan(model="owner/base", rule="heads", heads=PLAN.heads)
    operate(model, named, 3).save(tmp_path / "patch.safetensors")
    said = run("push", "patch.safetensors", "owner/patch", "--yes")
    assert said.exit_code == 0, said.output
    files = FakeApi.calls[1][2]
    assert set(files) == {"patch.safetensors", "README.md", "plan.yaml"}
    card = files["README.md"].decode()
    assert "base_model: owner/base" in card
    assert 'hs.apply_patch(model, "patch.safetensors")' in card
    assert Plan.from_yaml(files["plan.yaml"].decode()).operated == PLAN.operated


def test_a_patch_on_a_folder_of_this_machine_is_refused(patch: Path) -> None:
    said = run("push", patch, "owner/patch", "--yes")
    assert said.exit_code == 2
    assert "a folder of this machine, so nobody could apply it" in " ".join(said.stderr.split())
    assert FakeApi.calls == ()


@pytest.mark.parametrize("repository", ["name", "a/b/c", "/a/b", "a/b@c"])
def test_what_is_no_repository_is_refused(repository: str, patch: Path) -> None:
    said = run("push", patch, repository, "--yes")
    assert said.exit_code == 2
    assert "expected a repository OWNER/NAME" in said.stderr


def test_a_folder_that_merge_did_not_write_is_refused(patch: Path, tmp_path: Path) -> None:
    said = run("push", tmp_path / "base", "owner/name", "--yes")
    assert said.exit_code == 2
    assert "expected a folder that headsurgeon merge wrote" in " ".join(said.stderr.split())


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (LocalTokenNotFoundError("no token"), "run: hf auth login"),
        (OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE"),
        (ConnectionError("no route"), "no route"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_told_in_words(
    failure: Exception, words: str, merged: Path
) -> None:
    FakeApi.failure = failure
    said = run("push", merged, "owner/repaired", "--yes")
    assert said.exit_code == 1
    assert words in " ".join(said.stderr.split())
