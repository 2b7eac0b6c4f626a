"""What a GGUF file holds that `transformers` would pass over without a word."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PretrainedConfig, PreTrainedModel

from headsurgeon.errors import ModelError

# says nothing about how the model computes
_PROSE = re.compile(r"(GGUF|general|tokenizer|quantize|imatrix|training|split)\..*")
# of these, what says which model is in the file, or which part of it
_KINDS = ("general.type", "general.architecture", "split.count")
# experts lie stacked in the file; a missing one is found where its own weights are missing
_EXPERTS = re.compile(r"blk\.\d+\.ffn_(gate|up|down|gate_up)_exps\.weight")
# frequencies of the rotation; ones change nothing
_FREQUENCIES = "rope_freqs.weight"
# true of every model, or without meaning by itself
_IDLE = {
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_log_multiplier",
    "tensor_data_layout",
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (1.0, 0.0),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scale_linear": (1.0,),
    "attention.causal": (True,),
    "attention.max_alibi_bias": (8.0,),
    "attention.clamp_kqv": (0.0,),
    "logit_scale": (1.0,),
    "residual_scale": (1.0,),
    "embedding_scale": (1.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
}
_NAMES: dict[str, tuple[str, ...]] = {
    "block_count": ("num_hidden_layers",),
    "embedding_length": ("hidden_size",),
    "feed_forward_length": ("intermediate_size", "n_inner"),
    "vocab_size": ("vocab_size",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads", "num_attention_heads"),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": (
        "layer_norm_eps",
        "layer_norm_epsilon",
        "norm_epsilon",
        "norm_eps",
    ),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "logit_scale": ("logit_scale",),
    "use_parallel_residual": ("use_parallel_residual",),
    "expert_count": ("num_experts", "num_local_experts"),
    "expert_used_count": ("num_experts_per_tok",),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "shortconv.l_cache": ("conv_L_cache",),
}


def check_metadata(path: Path, config: PretrainedConfig) -> None:
    """Refuses a file that describes a model other than the one that its configuration makes.

    Raises:
        ModelError: the file holds an adapter, or metadata of the architecture that `transformers`
            does not honour, such as a scaling of the rotation.
    """
    from gguf import GGUFReader

    # not the vocabulary, whose entries are decoded one by one
    fields: dict[str, Any] = {
        name: field.contents()
        for name, field in GGUFReader(path).fields.items()
        if name in _KINDS or not _PROSE.fullmatch(name)
    }
    kind = fields.get("general.type", "model")
    if kind != "model":
        raise ModelError(
            f"{path}: holds no whole model but one of type {str(kind)[:40]!r}; expected a model, "
            "into which an adapter has been merged"
        )
    if fields.get("split.count", 1) not in (0, 1):
        raise ModelError(f"{path}: is one part of several; merge them first (llama-gguf-split)")
    architecture = f"{fields.get('general.architecture')}."
    ignored = [
        f"{name} = {str(value)[:40]}"
        for name, value in fields.items()
        if name not in _KINDS and not _honoured(name.removeprefix(architecture), value, config)
    ]
    if ignored:
        raise ModelError(
            f"{path}: transformers does not honour what the file says about its model: "
            f"{_first(sorted(ignored))}; convert the original checkpoint instead of the GGUF file"
        )


def check_tensors(path: Path, model: PreTrainedModel) -> None:
    """Refuses a file with tensors for which the model has no place.

    Raises:
        ModelError: there are such tensors.
    """
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    reader = GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=model.config.to_dict())
    known = set(get_gguf_hf_weights_map(model, processor)) | {"output.weight"}
    unread = sorted(
        tensor.name
        for tensor in reader.tensors
        if tensor.name not in known
        and not _EXPERTS.fullmatch(tensor.name)
        and not (tensor.name == _FREQUENCIES and bool(np.all(np.asarray(tensor.data) == 1.0)))
    )
    if unread:
        raise ModelError(
            f"{path}: {type(model).__name__} has no place for the stored tensors "
            f"{_first(unread)}, so another model would be measured than the one stored; "
            "convert the original checkpoint instead of the GGUF file"
        )


def _honoured(name: str, value: Any, config: PretrainedConfig) -> bool:
    """Whether the configuration says the same as one field, named without its architecture."""
    if name in _IDLE or any(_same(value, neutral) for neutral in _NEUTRAL.get(name, ())):
        return True
    derived = _DERIVED.get(name)
    if derived is not None:
        return _same(value, derived(config))
    return any(_same(value, getattr(config, field, None)) for field in _NAMES.get(name, ()))


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, list):
        # one value per layer, where all are alike or a layer has none
        return bool(value) and all(entry == 0 or _same(entry, other) for entry in value)
    if isinstance(value, bool | str) or isinstance(other, bool | str) or other is None:
        return type(value) is type(other) and bool(value == other)
    return bool(np.isclose(float(value), float(other), rtol=1e-5, atol=0.0))


def _width(config: PretrainedConfig) -> int:
    width: int | None = getattr(config, "head_dim", None)
    return width or config.hidden_size // config.num_attention_heads


def _rotation(config: PretrainedConfig) -> dict[str, Any]:
    held: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    nested = held.get("full_attention")
    return nested if isinstance(nested, dict) else held


def _rotated(config: PretrainedConfig) -> int:
    share = _rotation(config).get("partial_rotary_factor")
    return int(_width(config) * (1.0 if share is None else share))


_DERIVED: dict[str, Callable[[PretrainedConfig], Any]] = {
    "attention.key_length": _width,
    "attention.value_length": _width,
    "rope.dimension_count": _rotated,
    "rope.freq_base": lambda config: _rotation(config).get("rope_theta"),
    # how far the model was trained, which bounds nothing where positions are computed
    "context_length": lambda config: config.max_position_embeddings,
}


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return f"{', '.join(listed[:3])}{more}"
