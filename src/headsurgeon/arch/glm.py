"""GLM and GLM-4: rotation of a part of each head, no bias on the output, gate and up stacked."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a GLM or GLM-4 model; they differ in norms outside of attention alone."""
    return separate(
        config,
        bias=config.attention_bias,
        mlp=("mlp.gate_up_proj", "mlp.down_proj"),
        mlp_up_start=config.intermediate_size,
    )
