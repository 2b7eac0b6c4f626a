"""LFM2: a hybrid of short convolutions and layers with attention; norms per head, no biases."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of an LFM2 model; `layer_types` says which layers attend."""
    kinds = config.layer_types[: config.num_hidden_layers]
    return separate(
        config,
        bias=False,
        output="out_proj",
        mlp=("feed_forward.w3", "feed_forward.w2"),
        attending=tuple(kind == "full_attention" for kind in kinds),
    )
