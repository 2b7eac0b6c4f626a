"""Which families are described, and the layout of a given model."""

from collections.abc import Callable

from transformers import PretrainedConfig, PreTrainedModel

from headsurgeon.arch import bloom, falcon, mpt
from headsurgeon.arch.layout import Layout
from headsurgeon.errors import UnsupportedModel

FAMILIES: dict[str, Callable[[PretrainedConfig], Layout]] = {
    "bloom": bloom.describe,
    "falcon": falcon.describe,
    "mpt": mpt.describe,
}


def layout_of(model: PreTrainedModel) -> Layout:
    """The layout of a loaded causal language model.

    Raises:
        UnsupportedModel: the family is not described, or the model has no language-model head.
    """
    layout = layout_for(model.config)
    if model.get_output_embeddings() is None:
        raise UnsupportedModel(
            f"{type(model).__name__} has no language-model head; "
            "load it as a causal language model (AutoModelForCausalLM)"
        )
    return layout


def layout_for(config: PretrainedConfig) -> Layout:
    """The layout that a configuration describes; see `layout_of`."""
    describe = FAMILIES.get(config.model_type)
    if describe is None:
        raise UnsupportedModel(
            f"no layout for architecture {config.model_type!r}; described are the decoders "
            f"{', '.join(sorted(FAMILIES))}"
        )
    return describe(config)
