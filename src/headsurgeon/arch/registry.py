"""Which families are described, and the layout of a given model."""

from collections.abc import Callable

from transformers import PretrainedConfig, PreTrainedModel

from headsurgeon.arch import bloom, falcon, gemma, gpt2, gpt_neox, lfm2, mpt, phi3
from headsurgeon.arch.attention_modules import check_attention_modules
from headsurgeon.arch.identity import check_code
from headsurgeon.arch.layout import Layout
from headsurgeon.arch.plain_families import PLAIN_FAMILIES
from headsurgeon.arch.refused import reason
from headsurgeon.arch.structure import check_structure
from headsurgeon.errors import UnsupportedModel

# by `model_type` of the configuration
FAMILIES: dict[str, Callable[[PretrainedConfig], Layout]] = {
    **PLAIN_FAMILIES,
    "bloom": bloom.describe,
    "falcon": falcon.describe,
    "gemma": gemma.gemma,
    "gemma2": gemma.gemma2,
    "gemma3": gemma.gemma3,
    "gemma3_text": gemma.gemma3_text,
    "gpt2": gpt2.describe,
    "gpt_neox": gpt_neox.describe,
    "lfm2": lfm2.describe,
    "lfm2_moe": lfm2.describe_moe,
    "mpt": mpt.describe,
    "phi3": phi3.describe,
}


def layout_of(model: PreTrainedModel) -> Layout:
    """The layout of a loaded causal language model.

    Raises:
        UnsupportedModel: the family is not described, the model has no language-model head, it runs
            code that is not the family's, its attention was changed after loading, or it has other
            layers or heads than its configuration says.
    """
    layout = layout_for(model.config)
    if model.get_output_embeddings() is None:
        raise UnsupportedModel(
            f"{type(model).__name__} has no language-model head; "
            "load it as a causal language model (AutoModelForCausalLM)"
        )
    check_code(model)
    check_structure(model, layout)
    check_attention_modules(model, layout)
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
