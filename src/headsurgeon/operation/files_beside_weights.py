"""What lies beside the weights of a checkpoint, and goes with them into a merged one."""

import os
import re
import shutil
import warnings
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import PreTrainedModel

from headsurgeon.errors import HeadsurgeonWarning
from headsurgeon.models.address import Address
from headsurgeon.models.cached import unknown
from headsurgeon.models.origin import checkpoint_folder

# says where a checkpoint comes from and which files of its folder were written here
MARKER = "headsurgeon.json"
# weights in any form, since those of the base would be stale beside the merged ones
_WEIGHTS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".ggml"),
    *(".onnx", ".onnx_data", ".npz", ".tflite", ".ot", ".pkl", ".pickle", ".index.json"),
)
_TOKENIZER = "tokenizer_config.json"
_USUAL = (_TOKENIZER, "tokenizer.json", "special_tokens_map.json", "generation_config.json")
# a name that only transformers 5 knows; the other is the same class and read by 4 and 5
_NEW_CLASS = re.compile(rb'("tokenizer_class"\s*:\s*")TokenizersBackend"')


def base_folder(model: PreTrainedModel) -> Path | None:
    """The folder a model was read from, with all that its repository on the Hub has beside weights.

    Warns:
        HeadsurgeonWarning: the Hub cannot be reached, so what the local cache lacks is left out;
            says which of the usual files it lacks.
    """
    folder = checkpoint_folder(model)
    commit = getattr(model.config, "_commit_hash", None)
    if folder is not None and isinstance(commit, str) and commit == folder.name:
        repository = Address.parse(str(model.name_or_path)).repository
        try:
            HfApi().list_repo_files(repository, revision=commit)
            ignored = [f"*{suffix}" for suffix in _WEIGHTS]
            snapshot_download(repository, revision=commit, ignore_patterns=ignored)
        except (OSError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled):
            lacking = [name for name in _USUAL if unknown(repository, name, commit)]
            lacks = f", which lacks {', '.join(lacking)}" if lacking else ""
            warnings.warn(
                f"{model.name_or_path}: the Hugging Face Hub cannot be asked what lies beside the "
                f"weights, so what goes with them is what the local cache holds{lacks}",
                category=HeadsurgeonWarning,
                stacklevel=2,
            )
    return folder


def copy_beside(source: Path, target: Path) -> None:
    """Copies everything but weights, hidden files, and checkpoints in folders below."""
    for where, folders, files in os.walk(source):
        here = Path(where)
        if here != source and (MARKER in files or any(map(_is_weights, files))):
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            file = here / name
            if name.startswith(".") or name == MARKER or _is_weights(name) or not file.is_file():
                continue
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer lies in the folder."""
    return any((folder / name).is_file() for name in (_TOKENIZER, "tokenizer.json"))


def name_readable_class(folder: Path) -> None:
    """Names the tokenizer's class so that transformers 4 can read it too."""
    path = folder / _TOKENIZER
    if path.is_file():
        content = path.read_bytes()
        path.write_bytes(_NEW_CLASS.sub(rb'\1PreTrainedTokenizerFast"', content))


def _is_weights(name: str) -> bool:
    return name.lower().endswith(_WEIGHTS)
