"""LFM2: a hybrid of short convolutions and layers with attention; norms per head, no biases."""

from dataclasses import replace

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


def describe_moe(config: PretrainedConfig) -> Layout:
    """The same with a mixture of experts in most layers; MLPs of the others are not looked at."""
    return replace(describe(config), mlp_up=None, mlp_down=None)
