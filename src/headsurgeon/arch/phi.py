"""Phi-1, Phi-1.5 and Phi-2: biases everywhere, rotation of a part of each head, optional norms."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import separate


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Phi model; with `qk_layernorm` each head's queries and keys have norms."""
    return separate(config, bias=True, output="dense", mlp=("mlp.fc1", "mlp.fc2"))
