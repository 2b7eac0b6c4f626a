"""StableLM: rotation of a part of each head, optional norms per head, optional QKV biases."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a StableLM model; the output projection never has a bias."""
    return separate(config, bias=config.use_qkv_bias)
