"""From a name to a model and its tokenizer: the zoo, a local folder, a GGUF file, or a Hub id."""

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from headsurgeon.arch import layout_for
from headsurgeon.arguments import checked
from headsurgeon.attention_kinds import STOCK
from headsurgeon.errors import HeadsurgeonWarning, ModelError, SettingsError
from headsurgeon.files import shorten
from headsurgeon.models.address import FORM, Address, located, looks_local
from headsurgeon.models.cached import CONFIG, cached, lacking_config, lacking_weights
from headsurgeon.models.catalogue import PREFIX, zoo_folder
from headsurgeon.models.checks import check_complete, check_tokenizer
from headsurgeon.models.device import pick_device, pick_dtype
from headsurgeon.models.gguf import SUFFIX, gguf_config, load_gguf
from headsurgeon.models.loaded_with import note_loaded_with
from headsurgeon.models.reading import check_json_files, reading
from headsurgeon.models.stored import StoredTensor
from headsurgeon.models.subfolders import checkpoints_below, commit_of, fetched, said
from headsurgeon.models.tokenizers import open_tokenizer
from headsurgeon.models.unread import (
    all_that_is_stored,
    check_hub_adapter,
    check_no_adapter,
    check_plain,
    check_read,
    check_tied,
    mismatched,
)


@checked
def load(
    spec: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | str | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
    max_memory: Mapping[int | str, int | str] | None = None,
    quantization_config: QuantizationConfigMixin | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a causal language model and its tokenizer, ready for measuring (in eval mode).

    Weights are read from safetensors or GGUF, never from pickle.

    Args:
        spec: `zoo:NAME`, a local folder, a `.gguf` file, or a Hub id such as
            `bigscience/bloom-560m`, alone or as `OWNER/NAME@REVISION/SUBFOLDER`. That is also how
            results name a model that was loaded with the next two.
        revision: branch, tag or commit on the Hub.
        subfolder: where below the folder or repository the checkpoint lies.
        tokenizer: a model to take the tokenizer of, in any form that `spec` has; by default the
            model's own, or the repository's where its subfolder has none.
        dtype: of the weights, as `torch.bfloat16` or `"bf16"`; fp32 on the CPU and the checkpoint's
            own elsewhere unless given.
        device: `auto`, `cuda`, `mps`, `cpu`.
        trust_remote_code: whether code that comes with the checkpoint may run on this machine.
        max_memory: most that each device may hold, such as `{0: "20GiB", "cpu": "30GiB"}`; given,
            it takes the place of `device`, and what does not fit is read from the disk whenever it
            is needed. Such a model can be measured; it cannot be operated on.
        quantization_config: holds the weights in 8 or 4 bit, as in `from_pretrained`, such as
            `transformers.BitsAndBytesConfig(load_in_8bit=True)` (extra `quantised`). A checkpoint
            that is stored that way needs none. Such a model too can be measured alone.

    Raises:
        ModelError: no such model, its files cannot be read, some of its weights would not be, an
            adapter lies beside them, its tokenizer is another model's, or the library that holds
            its weights is not installed.
        UnsupportedModel: no layout describes the architecture; raised before weights are read.
        NetworkError: a Hub id, and the Hub cannot be reached.
        SettingsError: no such device or dtype; `max_memory` or `quantization_config` for a GGUF
            file; both.
    """
    if max_memory is not None and quantization_config is not None:
        raise SettingsError("choose one of max_memory and quantization_config, not both")
    for place in max_memory or {}:
        if isinstance(place, int) and place >= torch.cuda.device_count():
            raise SettingsError(
                f"max_memory: there is no GPU {place} on this machine, which has "
                f"{torch.cuda.device_count()}"
            )
    spec = located(os.fspath(spec), revision, subfolder)
    named = None if tokenizer is None else os.fspath(tokenizer)
    target = pick_device(device)
    if isinstance(dtype, str):
        dtype = pick_dtype(dtype)
    if dtype is None and target.type == "cpu":
        dtype = torch.float32
    gguf = _gguf_file(spec)
    if gguf is not None:
        if max_memory is not None or quantization_config is not None:
            raise SettingsError(
                f"{spec}: max_memory and quantization_config are not for GGUF files, which have to "
                "be unpacked in memory; load it without, save_pretrained it, and load that folder"
            )
        model, loaded_tokenizer = load_gguf(gguf, dtype)
        model.to(target)  # type: ignore[arg-type]  # transformers wraps it without its types
        if named is not None:
            loaded_tokenizer = _other_tokenizer(named, trust_remote_code)
    else:
        placement: dict[str, Any] = {"device_map": {"": target}}
        if max_memory is not None:
            placement = {"device_map": "auto", "max_memory": dict(max_memory)}
        if quantization_config is not None:
            placement["quantization_config"] = quantization_config
        model, loaded_tokenizer = _load_checkpoint(spec, named, dtype, trust_remote_code, placement)
    check_tokenizer(spec, model, loaded_tokenizer)
    model.name_or_path = spec
    note_loaded_with(model, named, trust_remote_code)
    return model.eval(), loaded_tokenizer


def load_config(spec: str, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration alone; raises as `load` does."""
    gguf = _gguf_file(spec)
    if gguf is not None:
        return gguf_config(gguf)
    source, revision, _ = _source(spec)
    lacking = partial(lacking_config, source, revision, trust_remote_code)
    with reading(spec, "config.json", lacking):
        if not Path(source).is_dir():
            check_hub_adapter(source, revision)
        config: PretrainedConfig = AutoConfig.from_pretrained(
            source, revision=revision, trust_remote_code=trust_remote_code
        )
    return config


def _load_checkpoint(
    spec: str,
    tokenizer: str | None,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    placement: dict[str, Any],
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    source, revision, commit = _source(spec)
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with ExitStack() as leftovers:
        if "max_memory" in placement:
            # for the few weights that are not on the disk as the model wants them
            folder = tempfile.mkdtemp(prefix="headsurgeon-offload-")
            leftovers.callback(shutil.rmtree, folder, ignore_errors=True)
            placement = placement | {"offload_folder": folder}
        config = load_config(spec, trust_remote_code=trust_remote_code)
        with reading(spec, "config.json"):
            layout_for(config)
        _leave_kernel_to_library(spec, config)
        stored = all_that_is_stored(spec, source, revision)
        check_plain(spec, stored, config)

        def lacking() -> list[str]:
            code = lacking_config(source, revision, trust_remote_code)
            return [*code, *lacking_weights(source, revision)]

        with reading(spec, "its weights", lacking):
            try:
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
            except RuntimeError as error:
                if "ignore_mismatched_sizes" in str(error):
                    raise _other_shapes(spec, stored, config) from error
                raise
            except ValueError as error:
                # accelerate before 1.15 refuses by itself
                if "offload the whole model" in str(error):
                    raise _no_room(spec) from error
                raise
        model: PreTrainedModel = loaded[0]
        check_complete(spec, loaded[1]["missing_keys"])
        check_read(spec, loaded[1]["unexpected_keys"], stored, model)
        check_tied(spec, model)
        if model.device.type == "meta":
            raise _no_room(spec)
        if tokenizer is None:
            loaded_tokenizer = open_tokenizer(spec, source, **options)
        else:
            loaded_tokenizer = _other_tokenizer(tokenizer, trust_remote_code)
        # not every version of transformers notes it
        config_file = cached(source, CONFIG, revision)
        if commit is None and config_file is not None:
            commit = config_file.parent.name
        if commit is not None:
            model.config._commit_hash = commit
        weakref.finalize(model, leftovers.pop_all().close)
    return model, loaded_tokenizer


def _no_room(spec: str) -> ModelError:
    return ModelError(
        f"{spec}: max_memory leaves no room for the embeddings beside the largest layer; raise it"
    )


def _other_tokenizer(spec: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    source, revision, _ = _source(spec)
    return open_tokenizer(spec, source, revision=revision, trust_remote_code=trust_remote_code)


def _leave_kernel_to_library(spec: str, config: PretrainedConfig) -> None:
    """Has `transformers` choose the attention kernel, unless the stored one is eager.

    A configuration may keep the one that it was trained with. It changes no weights, may not be
    installed or known here, and most do not hand over what is measured.
    """
    stored = {each._attn_implementation for each in (config, config.get_text_config())}
    if stored <= {None, "eager"}:
        return
    config._attn_implementation = None
    for name in sorted(map(str, stored - {None, *STOCK})):
        warnings.warn(
            f"{spec}: its config.json asks for attention {name[:60]!r}, which cannot be measured; "
            "it is read with the usual one, which computes the same up to rounding",
            category=HeadsurgeonWarning,
            stacklevel=5,
        )


def _other_shapes(
    spec: str, stored: Mapping[str, StoredTensor], config: PretrainedConfig
) -> ModelError:
    """Which tensors have another shape than the configuration says."""
    with torch.device("meta"):
        expected = AutoModelForCausalLM.from_config(config)
    faults = [
        f"{name} is {list(here)} and should be {list(there)}"
        for name, here, there in mismatched(stored, expected)
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    named = "; ".join(faults[:3]) or "some tensors"
    return ModelError(
        f"{spec}: stored weights have other shapes than config.json says: {named}{more}; "
        "put the right config.json beside the weights"
    )


def _gguf_file(spec: str) -> Path | None:
    """The file, where `spec` names a GGUF file; the first to look where a model lies."""
    path = Path(os.path.expanduser(spec))
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        # that there is none is said in other words, by whoever looks for a folder, file or Hub id
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            reason = getattr(error, "strerror", None) or error
            raise ModelError(f"{shorten(spec, 300)}: cannot be looked up: {reason}") from error
    if spec.startswith(PREFIX) or path.suffix.lower() != SUFFIX or path.is_dir():
        return None
    if not path.is_file():
        raise ModelError(f"{spec}: no such file; expected a GGUF file on this machine")
    return path


class _Source(NamedTuple):
    """What `from_pretrained` takes: a folder or a Hub id, and its revision.

    Of a folder that was fetched from the Hub also the commit.
    """

    place: str
    revision: str | None = None
    commit: str | None = None


def _source(spec: str) -> _Source:
    if spec.startswith(PREFIX):
        return _Source(str(zoo_folder(spec)))
    folder = Path(os.path.expanduser(spec))
    if folder.is_dir():
        return _Source(str(_checkpoint(spec, folder)))
    if folder.is_file():
        raise ModelError(f"{spec}: expected a checkpoint folder, a {SUFFIX} file or a Hub id")
    address = Address.parse(spec)
    if looks_local(address.repository) or folder.exists():
        there = checkpoints_below(folder.parent) if folder.parent.is_dir() else []
        beside = f"; in {folder.parent} there are {said(there)}" if there else ""
        raise ModelError(
            f"{spec}: no such folder{beside}; expected a checkpoint folder or a Hub id, whose "
            f"checkpoints in subfolders are {FORM}"
        )
    if address.subfolder is None:
        return _Source(address.repository, address.revision)
    folder = _checkpoint(spec, fetched(address))
    return _Source(str(folder), None, commit_of(folder, address))


def _checkpoint(spec: str, folder: Path) -> Path:
    check_no_adapter(spec, (path.name for path in folder.iterdir()))
    if not (folder / "config.json").is_file():
        below = checkpoints_below(folder)
        there = f", but in {said(below)}, which lie in it" if below else ""
        raise ModelError(f"{spec}: expected a checkpoint folder, found no config.json in it{there}")
    check_json_files(spec, folder)
    return folder
