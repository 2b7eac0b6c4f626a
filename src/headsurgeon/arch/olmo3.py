"""OLMo 3: as OLMo 2, with a sliding window in most layers."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe(config: PretrainedConfig) -> Layout:
    """The layout of an OLMo 3 model; its norms make the heads of a layer depend on each other."""
    return separate(
        config, bias=config.attention_bias, windows=windows_by_type(config), joint_norm=True
    )
