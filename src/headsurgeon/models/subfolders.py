"""Checkpoints in folders below another: fetching one from the Hub, and saying which there are."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, is_offline_mode, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from headsurgeon.errors import ModelError
from headsurgeon.models.address import Address
from headsurgeon.models.reading import reading

CONFIG = "config.json"
# weights are read from safetensors alone; the rest is what lies beside them
_FETCHED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "*.py")
_TOKENIZERS = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model"),
)


def fetched(address: Address) -> Path:
    """The folder in the local cache that holds a subfolder of a repository; fetches what it lacks.

    Raises:
        ModelError: no such model, revision or subfolder; says which subfolders there are.
        NetworkError: it is not in the cache, and the Hub cannot be reached.
    """
    below = str(address.subfolder)
    with reading(str(address), f"subfolder {below}"):
        snapshot = Path(
            snapshot_download(
                address.repository,
                revision=address.revision,
                # beside it a tokenizer that is kept once for all of them
                allow_patterns=[*(f"{below}/{name}" for name in _FETCHED), *_TOKENIZERS],
                # asked for a whole commit, some versions want to list it even then
                local_files_only=is_offline_mode(),
            )
        )
    if not (snapshot / below / CONFIG).is_file():
        names, where = _known(address, snapshot)
        raise ModelError(f"{address}: no checkpoint in {below}; {where}: {said(names)}")
    return snapshot / below


def commit_of(folder: Path, address: Address) -> str:
    """The commit that a folder returned by `fetched` is of."""
    return folder.parents[len(PurePosixPath(str(address.subfolder)).parts) - 1].name


def checkpoints_below(folder: Path) -> list[str]:
    """Folders below one, at most two deep, that hold a checkpoint; relative and sorted."""
    folders = {
        path.parent.relative_to(folder).as_posix()
        for pattern in (f"*/{CONFIG}", f"*/*/{CONFIG}")
        for path in folder.glob(pattern)
    }
    return sorted(folders)


def said(names: Iterable[str]) -> str:
    """The first of many names, and how many there are beyond them."""
    listed = list(names)
    more = f" and {len(listed) - 12} more" if len(listed) > 12 else ""
    return (", ".join(listed[:12]) + more) or "none"


def holds_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in the folder, in any of the forms that `transformers` reads."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def _known(address: Address, snapshot: Path) -> tuple[list[str], str]:
    try:
        files = HfApi().list_repo_files(address.repository, revision=address.revision)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled):
        return checkpoints_below(snapshot), "the Hub cannot be asked; in the local cache there are"
    folders = {str(PurePosixPath(name).parent) for name in files if name.endswith(f"/{CONFIG}")}
    return sorted(folders), "there are"
