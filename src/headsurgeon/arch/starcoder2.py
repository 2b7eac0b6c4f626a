"""StarCoder2: biases on all projections (with `use_bias`), an MLP without a gate."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import same_window, separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a StarCoder2 model."""
    return separate(
        config,
        bias=config.use_bias,
        mlp=("mlp.c_fc", "mlp.c_proj"),
        windows=same_window(config),
    )
