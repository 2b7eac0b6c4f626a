"""What goes to the Hugging Face Hub, seen before it goes: a merged checkpoint or a patch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)

from headsurgeon.errors import InputError, NetworkError, PatchError, SettingsError
from headsurgeon.files import read_json
from headsurgeon.operation.files_beside_weights import MARKER
from headsurgeon.operation.merged_checkpoint import KIND as MERGED
from headsurgeon.operation.model_card import (
    CARD,
    PLAN,
    Operated,
    Told,
    base_name,
    model_card,
    on_the_hub,
)
from headsurgeon.operation.patch import read_content
from headsurgeon.planning import Plan


@dataclass(frozen=True)
class Upload:
    """A file and where it goes.

    Attributes:
        name: path in the repository.
        content: the file on this machine, or what is uploaded in its place.
        remark: what was changed, or what the reader should know; empty where nothing.
    """

    name: str
    content: Path | bytes
    remark: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def uploads_of(source: Path, told: Told | None = None) -> list[Upload]:
    """The files of a merged checkpoint, or a patch with a card; paths of this machine stay here.

    Raises:
        InputError: neither a folder that `merge` wrote nor a patch.
        PatchError: a patch that is damaged.
    """
    if source.is_file():
        return _of_patch(source, told or Told())
    if not (source / MARKER).is_file():
        raise InputError(
            f"{source}: expected a folder that headsurgeon merge wrote (it has {MARKER}), or a "
            "patch file"
        )
    return [
        _of_file(path, path.relative_to(source).as_posix())
        for path in sorted(source.rglob("*"))
        if path.is_file() and not _hidden(path.relative_to(source))
    ]


def publish(
    api: Any, repository: str, uploads: Sequence[Upload], private: bool, message: str
) -> str:
    """Uploads the files in one commit, and makes the repository if there is none.

    Args:
        api: a `huggingface_hub.HfApi`.
        repository: `OWNER/NAME`.
        private: whether a new repository is; one that exists stays as it is.

    Returns:
        Address of the commit.

    Raises:
        SettingsError: a repository name that the Hub does not allow.
        NetworkError: the Hub cannot be reached, or refuses.
    """
    operations = [
        CommitOperationAdd(
            path_in_repo=upload.name,
            path_or_fileobj=(
                upload.content if isinstance(upload.content, bytes) else str(upload.content)
            ),
        )
        for upload in uploads
    ]
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(repository, operations, commit_message=message)
    except HFValidationError as error:
        raise SettingsError(f"{repository}: the Hub allows no such name: {_line(error)}") from error
    except LocalTokenNotFoundError as error:
        raise NetworkError(
            f"{repository}: nobody is logged in on this machine; run: hf auth login"
        ) from error
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise NetworkError(
            f"{repository}: the Hub could not be reached or refused ({_line(error)}); check the "
            "network, HF_HUB_OFFLINE, and that you may write there (hf auth whoami)"
        ) from error
    return str(done.commit_url)


def _of_file(path: Path, name: str) -> Upload:
    if name == MARKER:
        content = read_json(path, MERGED)
        clean = {
            **content,
            "model": base_name(str(content.get("model"))),
            "patches": [base_name(str(patch)) for patch in content.get("patches", ())],
        }
        if clean != content:
            text = json.dumps(clean, indent=2, ensure_ascii=False) + "\n"
            return Upload(name, text.encode(), "without the paths of this machine")
    if name == PLAN:
        plan = Plan.load(path)
        if base_name(plan.model) != plan.model:
            text = plan.model_copy(update={"model": base_name(plan.model)}).to_yaml()
            return Upload(name, text.encode(), "without the path of this machine")
    return Upload(name, path)


def _of_patch(path: Path, told: Told) -> list[Upload]:
    content = read_content(path)
    done = Operated(
        plan=content.plan,
        seed=content.beginning.seed,
        init=content.beginning.init.name,
        output_start=content.beginning.output_start.name,
        patches=["patch.safetensors"],
        fingerprint=content.metadata["fingerprint"],
        precision="",
        loaded_with=(told.runs[0].get("loaded_with") or {}) if told.runs else {},
    )
    card = model_card(done, told, None, None, as_patch=True)
    name = content.plan.model
    local = name.startswith(("/", "~", ".")) or ("/" in name and not on_the_hub(name))
    if local:
        raise PatchError(
            f"{path} names {name} as its base, a folder of this machine, so nobody could apply it; "
            "operate on the model by its name on the Hub, or push the merged model"
        )
    return [
        Upload("patch.safetensors", path),
        Upload(CARD, card.encode(), "the card"),
        Upload(PLAN, content.plan.to_yaml().encode(), "the plan in the patch"),
    ]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
