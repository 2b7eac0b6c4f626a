"""Which families are described, and the layout of a given model."""

from collections.abc import Callable

from transformers import PretrainedConfig, PreTrainedModel

from headsurgeon.arch import (
    bloom,
    cohere,
    cohere2,
    falcon,
    gemma,
    gemma2,
    gemma3,
    glm,
    gpt2,
    gpt_neox,
    gpt_oss,
    granite,
    granitemoe,
    lfm2,
    llama,
    mistral,
    mixtral,
    mpt,
    olmo,
    olmo2,
    olmo3,
    opt,
    phi,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_moe,
    smollm3,
    stablelm,
    starcoder2,
)
from headsurgeon.arch.identity import check_code
from headsurgeon.arch.layout import Layout
from headsurgeon.arch.refused import reason
from headsurgeon.errors import UnsupportedModel

# by `model_type` of the configuration
FAMILIES: dict[str, Callable[[PretrainedConfig], Layout]] = {
    "bloom": bloom.describe,
    "cohere": cohere.describe,
    "cohere2": cohere2.describe,
    "falcon": falcon.describe,
    "gemma": gemma.describe,
    "gemma2": gemma2.describe,
    "gemma3": gemma3.describe,
    "gemma3_text": gemma3.describe_text,
    "glm": glm.describe,
    "glm4": glm.describe,
    "gpt2": gpt2.describe,
    "gpt_neox": gpt_neox.describe,
    "gpt_oss": gpt_oss.describe,
    "granite": granite.describe,
    "granitemoe": granitemoe.describe,
    "lfm2": lfm2.describe,
    "lfm2_moe": lfm2.describe_moe,
    "llama": llama.describe,
    "mistral": mistral.describe,
    "mixtral": mixtral.describe,
    "mpt": mpt.describe,
    "olmo": olmo.describe,
    "olmo2": olmo2.describe,
    "olmo3": olmo3.describe,
    "opt": opt.describe,
    "phi": phi.describe,
    "phi3": phi3.describe,
    "qwen2": qwen2.describe,
    "qwen2_moe": qwen2_moe.describe,
    "qwen3": qwen3.describe,
    "qwen3_moe": qwen3_moe.describe,
    "smollm3": smollm3.describe,
    "stablelm": stablelm.describe,
    "starcoder2": starcoder2.describe,
}


def layout_of(model: PreTrainedModel) -> Layout:
    """The layout of a loaded causal language model.

    Raises:
        UnsupportedModel: the family is not described, the model has no language-model head, or it
            runs code that is not the family's.
    """
    layout = layout_for(model.config)
    if model.get_output_embeddings() is None:
        raise UnsupportedModel(
            f"{type(model).__name__} has no language-model head; "
            "load it as a causal language model (AutoModelForCausalLM)"
        )
    check_code(model)
    return layout


def layout_for(config: PretrainedConfig) -> Layout:
    """The layout that a configuration describes; see `layout_of`."""
    describe = FAMILIES.get(config.model_type)
    if describe is None:
        raise UnsupportedModel(
            f"no layout for architecture {config.model_type!r}{reason(config)}; described are the "
            f"decoders {', '.join(sorted(FAMILIES))}; docs/add_an_architecture.md says how to add "
            "a decoder"
        )
    layout = describe(config)
    if not layout.attention_layers:
        raise UnsupportedModel(
            f"none of the {layout.layers} layers of this {config.model_type} model attends; "
            "expected one with attention in some of them"
        )
    return layout
