"""OPT: learned positions, biases (with `enable_bias`) on all four projections."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of an OPT model.

    Its own forward scales the queries before it calls attention; `scale` says the same factor.
    """
    return separate(
        config,
        bias=config.enable_bias,
        stack="model.decoder.layers.{layer}",
        output="out_proj",
        mlp=("fc1", "fc2"),
        initializer_range=config.init_std,
    )
