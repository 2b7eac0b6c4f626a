"""Qwen2-MoE: Qwen2's attention with a mixture of experts as MLP in most layers."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate, windows_by_type


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Qwen2-MoE model; MLPs of the layers without experts are not looked at."""
    return separate(config, bias=config.qkv_bias, mlp=None, windows=windows_by_type(config))
