"""From a name to a model and its tokenizer: the zoo, a local folder, or a Hub id."""

import os
from pathlib import Path

import torch
from huggingface_hub.errors import (
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from headsurgeon.arch import layout_for
from headsurgeon.errors import HeadsurgeonError, ModelError, NetworkError
from headsurgeon.models.catalogue import PREFIX, zoo_folder
from headsurgeon.models.device import pick_device


def load(
    spec: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a causal language model and its tokenizer, ready for measuring (in eval mode).

    Args:
        spec: `zoo:NAME`, a local folder, or a Hub id such as `bigscience/bloom-560m`.
        revision: branch, tag or commit on the Hub.
        dtype: of the weights; fp32 on the CPU and the checkpoint's own elsewhere unless given.
        device: `auto`, `cuda`, `mps`, `cpu`.

    Raises:
        ModelError: no such model, or its files cannot be read.
        UnsupportedModel: no layout describes the architecture; raised before weights are read.
        NetworkError: a Hub id, and the Hub cannot be reached.
    """
    target = pick_device(device)
    source = _source(spec)
    if dtype is None and target.type == "cpu":
        dtype = torch.float32
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        layout_for(config)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=dtype or "auto",
            use_safetensors=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except HeadsurgeonError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _explained(spec, error) from error
    model.name_or_path = spec
    model.to(target)  # type: ignore[arg-type]  # transformers wraps nn.Module.to without its types
    return model.eval(), tokenizer


def load_config(spec: str, *, revision: str | None = None) -> PretrainedConfig:
    """The configuration alone; raises as `load` does."""
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(_source(spec), revision=revision)
    except (OSError, ValueError) as error:
        raise _explained(spec, error) from error
    return config


def _source(spec: str) -> str:
    """What `from_pretrained` takes: a folder or a Hub id."""
    if spec.startswith(PREFIX):
        return str(zoo_folder(spec))
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{spec}: expected a checkpoint folder, found no config.json in it")
        return str(folder)
    looks_local = spec.startswith((".", "~", os.sep)) or spec.count("/") > 1
    if looks_local or folder.exists():
        raise ModelError(f"{spec}: no such folder; expected a checkpoint folder or a Hub id")
    return spec


def _explained(spec: str, error: Exception) -> HeadsurgeonError:
    """The failure in one line: what was asked for, why it failed, what to do."""
    causes = list(_chain(error))
    # asked in this order because huggingface_hub derives some of these from one another
    for cause in causes:
        if isinstance(cause, RepositoryNotFoundError | RevisionNotFoundError):
            return ModelError(f"{spec}: the Hub has no such model or revision; check the spelling")
    for cause in causes:
        if isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError):
            return NetworkError(
                f"{spec}: not in the local cache, and the Hugging Face Hub cannot be reached; "
                "go online once, or give a local folder or a zoo: name"
            )
    reason = " ".join(str(error).split())
    return ModelError(f"{spec}: cannot be loaded: {reason}")


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
