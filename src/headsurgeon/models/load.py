"""From a name to a model and its tokenizer: the zoo, a local folder, a GGUF file, or a Hub id."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

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
from transformers.utils.quantization_config import QuantizationConfigMixin

from headsurgeon.arch import layout_for
from headsurgeon.errors import HeadsurgeonError, ModelError, NetworkError, SettingsError
from headsurgeon.models.catalogue import PREFIX, zoo_folder
from headsurgeon.models.checks import check_complete, check_tokenizer
from headsurgeon.models.device import pick_device
from headsurgeon.models.gguf import SUFFIX, gguf_config, load_gguf


def load(
    spec: str,
    *,
    revision: str | None = None,
    dtype: torch.dtype | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
    max_memory: Mapping[int | str, int | str] | None = None,
    quantization_config: QuantizationConfigMixin | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a causal language model and its tokenizer, ready for measuring (in eval mode).

    Weights are read from safetensors or GGUF, never from pickle.

    Args:
        spec: `zoo:NAME`, a local folder, a `.gguf` file, or a Hub id such as
            `bigscience/bloom-560m`.
        revision: branch, tag or commit on the Hub.
        dtype: of the weights; fp32 on the CPU and the checkpoint's own elsewhere unless given.
        device: `auto`, `cuda`, `mps`, `cpu`.
        trust_remote_code: whether code that comes with the checkpoint may run on this machine.
        max_memory: most that each device may hold, such as `{0: "20GiB", "cpu": "30GiB"}`; given,
            it takes the place of `device`, and what does not fit is read from the disk whenever it
            is needed. Such a model can be measured; it cannot be operated on.
        quantization_config: holds the weights in 8 or 4 bit, as in `from_pretrained`, such as
            `transformers.BitsAndBytesConfig(load_in_8bit=True)` (extra `quantised`). A checkpoint
            that is stored that way needs none. Such a model too can be measured alone.

    Raises:
        ModelError: no such model, its files cannot be read, its tokenizer is another model's, or
            the library that holds its weights is not installed.
        UnsupportedModel: no layout describes the architecture; raised before weights are read.
        NetworkError: a Hub id, and the Hub cannot be reached.
        SettingsError: no such device; `max_memory` or `quantization_config` for a GGUF file; both.
    """
    if max_memory is not None and quantization_config is not None:
        raise SettingsError("choose one of max_memory and quantization_config, not both")
    target = pick_device(device)
    if dtype is None and target.type == "cpu":
        dtype = torch.float32
    gguf = _gguf_file(spec)
    if gguf is not None:
        if max_memory is not None or quantization_config is not None:
            raise SettingsError(
                f"{spec}: max_memory and quantization_config are not for GGUF files, which have to "
                "be unpacked in memory; load it without, save_pretrained it, and load that folder"
            )
        model, tokenizer = load_gguf(gguf, dtype)
        model.to(target)  # type: ignore[arg-type]  # transformers wraps it without its types
    else:
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        placement: dict[str, Any] = {"device_map": {"": target}}
        if max_memory is not None:
            placement = {"device_map": "auto", "max_memory": dict(max_memory)}
        if quantization_config is not None:
            placement["quantization_config"] = quantization_config
        model, tokenizer = _load_checkpoint(spec, dtype, options, placement)
    check_tokenizer(spec, model, tokenizer)
    model.name_or_path = spec
    return model.eval(), tokenizer


def load_config(
    spec: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PretrainedConfig:
    """The configuration alone; raises as `load` does."""
    gguf = _gguf_file(spec)
    if gguf is not None:
        return gguf_config(gguf)
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            _source(spec), revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise _explained(spec, error) from error
    return config


def _load_checkpoint(
    spec: str, dtype: torch.dtype | None, options: Mapping[str, Any], placement: dict[str, Any]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source = _source(spec)
    with ExitStack() as leftovers:
        if "max_memory" in placement:
            # for the few weights that are not on the disk as the model wants them
            folder = tempfile.mkdtemp(prefix="headsurgeon-offload-")
            leftovers.callback(shutil.rmtree, folder, ignore_errors=True)
            placement = placement | {"offload_folder": folder}
        try:
            config = AutoConfig.from_pretrained(source, **options)
            layout_for(config)
            # a pair with output_loading_info, which its annotation leaves out
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source,
                config=config,
                dtype=dtype or "auto",
                use_safetensors=True,
                output_loading_info=True,
                **options,
                **placement,
            )
            model: PreTrainedModel = loaded[0]
            check_complete(spec, loaded[1]["missing_keys"])
            if model.device.type == "meta":
                raise ModelError(
                    f"{spec}: max_memory leaves no room for the embeddings beside the largest "
                    "layer; raise it"
                )
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
        except HeadsurgeonError:
            raise
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            raise _explained(spec, error) from error
        weakref.finalize(model, leftovers.pop_all().close)
    return model, tokenizer


def _gguf_file(spec: str) -> Path | None:
    """The file, where `spec` names a GGUF file."""
    path = Path(spec).expanduser()
    if spec.startswith(PREFIX) or path.suffix.lower() != SUFFIX or path.is_dir():
        return None
    if not path.is_file():
        raise ModelError(f"{spec}: no such file; expected a GGUF file on this machine")
    return path


def _source(spec: str) -> str:
    """What `from_pretrained` takes: a folder or a Hub id."""
    if spec.startswith(PREFIX):
        return str(zoo_folder(spec))
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{spec}: expected a checkpoint folder, found no config.json in it")
        return str(folder)
    if folder.is_file():
        raise ModelError(f"{spec}: expected a checkpoint folder, a {SUFFIX} file or a Hub id")
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
    if "trust_remote_code" in reason:
        return ModelError(
            f"{spec}: comes with code of its own, which is not run unless you trust it; read it, "
            "then pass trust_remote_code=True (on the command line --trust-remote-code)"
        )
    if isinstance(error, ImportError):
        return ModelError(
            f"{spec}: takes a library that is not installed (for bitsandbytes: pip install "
            f'"headsurgeon[quantised]"): {reason}'
        )
    return ModelError(f"{spec}: cannot be loaded: {reason}")


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain
