"""GPT-OSS: a learned sink per head, windows in every other layer, a mixture of experts as MLP."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a GPT-OSS model; the sinks stay frozen when heads are operated on."""
    return separate(
        config,
        bias=config.attention_bias,
        mlp=None,
        windows=windows_by_type(config),
        learned_sinks=True,
    )
