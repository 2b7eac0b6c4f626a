"""OLMo 2: one norm over the queries of all heads together, and one over all keys."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of an OLMo 2 model; its norms make the heads of a layer depend on each other."""
    return separate(config, bias=config.attention_bias, joint_norm=True)
