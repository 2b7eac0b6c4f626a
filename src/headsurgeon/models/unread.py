"""What of a checkpoint nobody would read, found from its names and headers: it is refused."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from headsurgeon.errors import ModelError
from headsurgeon.models.recomputed import check_recomputed, is_recomputed
from headsurgeon.models.stored import (
    StoredTensor,
    beside,
    has_weight_files,
    stored_tensors,
    weight_files,
)

_SHARD = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_ADAPTER = re.compile(r"adapters?([_.-].*)?\.(safetensors|bin|pt|pth|npz|gguf|json)", re.IGNORECASE)
_PLAIN = {"F64", "F32", "F16", "BF16"}
_SCALES = re.compile(r"scale|scb|absmax|quant_state|qzeros", re.IGNORECASE)


def check_no_adapter(spec: str, names: Iterable[str]) -> None:
    """Refuses a checkpoint with adapter files, whatever the packages installed would do with them.

    Args:
        spec: what is being loaded, for the message.
        names: names of the files that lie in its folder.

    Raises:
        ModelError: one of them is an adapter's.
    """
    adapters = sorted(name for name in names if _ADAPTER.fullmatch(name))
    if adapters:
        raise ModelError(
            f"{spec}: holds an adapter ({', '.join(adapters[:3])}), and whether it would count "
            "depends on the packages installed; merge it into its base first (in peft: "
            "PeftModel.merge_and_unload, then save_pretrained to a new folder), or move those "
            "files away to use the base alone"
        )


def check_hub_adapter(spec: str, revision: str | None) -> None:
    """The same for a Hub id: asks the cache or the Hub for an adapter's configuration.

    Raises:
        ModelError: there is one.
    """
    if beside(spec, "adapter_config.json", revision) is not None:
        check_no_adapter(spec, ["adapter_config.json"])


def all_that_is_stored(spec: str, source: str, revision: str | None) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint, by name; empty where it has no safetensors files.

    Raises:
        ModelError: a file is damaged, or one beside those that are read holds further weights.
    """
    if not has_weight_files(source, revision):
        return {}
    tensors = stored_tensors(source, revision)
    read = weight_files(source, revision)
    folder = Path(source)
    lying = folder.iterdir() if folder.is_dir() else ()
    left = sorted(path.name for path in lying if _SHARD.fullmatch(path.name) and path not in read)
    if left:
        raise ModelError(
            f"{spec}: {', '.join(left[:3])} would not be read (read are "
            f"{', '.join(path.name for path in read[:3])}); remove what does not belong to the "
            f"model, or name it in {SAFE_WEIGHTS_INDEX_NAME}"
        )
    return tensors


def check_plain(
    spec: str, stored: Mapping[str, StoredTensor], config: PretrainedConfig | None
) -> None:
    """Refuses weights in 8 or fewer bits without the scales that make them numbers.

    Raises:
        ModelError: there are such weights.
    """
    quantised = config is not None and getattr(config, "quantization_config", None) is not None
    names = sorted(stored)
    for name in names:
        if stored[name].dtype in _PLAIN or is_recomputed(name, stored[name]):
            continue
        stem = name.rpartition(".")[0] + "."
        scaled = any(other.startswith(stem) and _SCALES.search(other) for other in names)
        if not quantised and not scaled and _SCALES.search(name):
            continue
        # tables that a quantisation stores beside its scales come with them
        if quantised and (scaled or len(stored[name].shape) < 2):
            continue
        what = (
            "and no scale is stored beside it"
            if not scaled
            else "and config.json has no quantization_config that says how to scale it"
        )
        raise ModelError(
            f"{spec}: {name} is stored as {stored[name].dtype} {what}, so it does not say which "
            "numbers it stands for; load the checkpoint that it was made from (bf16, fp16 or fp32)"
        )


def check_read(
    spec: str,
    unexpected: Collection[str],
    stored: Mapping[str, StoredTensor],
    model: PreTrainedModel,
) -> None:
    """Refuses a checkpoint with weights that the model's class has no place for.

    Args:
        spec: what was loaded, for the message.
        unexpected: names that `transformers` found no place for.
        stored: what the checkpoint holds; `transformers` keeps silent about some of these.
        model: what it was loaded into.

    Raises:
        ModelError: there are such weights, or masks and tables that are computed again and are
            stored with other values.
    """
    _check_once(spec, stored, model)
    silent = _silent(model)
    names = set(unexpected) | {name for name in stored if silent and silent.search(name)}
    names -= set(model.state_dict())
    recomputed = {n for n in names if n in stored and is_recomputed(n, stored[n])}
    unread = sorted(names - recomputed)
    if unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        raise ModelError(
            f"{spec}: {type(model).__name__} has no place for the stored weights "
            f"{', '.join(unread[:3])}{more}, so another model would be measured than the one "
            "stored; check config.json (number of layers, biases, architecture), or remove the "
            "weights that do not belong to it"
        )
    check_recomputed(spec, (stored[name] for name in sorted(recomputed)), model)


def _check_once(spec: str, stored: Mapping[str, StoredTensor], model: PreTrainedModel) -> None:
    """Refuses two tensors for one parameter: with and without the name of the model's body."""
    prefix = f"{model.base_model_prefix}."
    twice = sorted(name for name in stored if f"{prefix}{name}" in stored)
    if twice:
        raise ModelError(
            f"{spec}: {prefix}{twice[0]} and {twice[0]} are stored, and both are for one "
            "parameter; remove the one that does not belong to the model"
        )


def check_tied(spec: str, model: PreTrainedModel) -> None:
    """Refuses a language-model head of its own where the configuration says there is none.

    Raises:
        ModelError: `tie_word_embeddings` is set, and the checkpoint holds two different tensors.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not model.config.get_text_config().tie_word_embeddings:
        return
    ours, theirs = head.get_parameter("weight"), embedding.get_parameter("weight")
    if ours is not theirs and not ours.is_meta and not ours.equal(theirs):
        raise ModelError(
            f"{spec}: config.json says that embeddings and language-model head are one "
            "(tie_word_embeddings), and two different ones are stored; "
            'set "tie_word_embeddings": false, or remove the one that is wrong'
        )


def mismatched(
    stored: Mapping[str, StoredTensor], model: PreTrainedModel
) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Tensors whose stored shape is not the model's: (name, stored, expected)."""
    prefix = f"{model.base_model_prefix}."
    differing = []
    for name, parameter in model.state_dict().items():
        here = stored.get(name) or stored.get(name.removeprefix(prefix))
        if here is not None and here.shape != tuple(parameter.shape):
            differing.append((name, here.shape, tuple(parameter.shape)))
    return sorted(differing)


def _silent(model: PreTrainedModel) -> re.Pattern[str] | None:
    """The names of which `transformers` does not say that it found no place for them."""
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), "inv_freq", "position_ids"]
    return re.compile("|".join(f"({pattern})" for pattern in patterns))
