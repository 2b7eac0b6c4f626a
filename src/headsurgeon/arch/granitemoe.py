"""Granite-MoE: Granite's attention with a mixture of experts as MLP."""

from dataclasses import replace

from transformers import PretrainedConfig

from headsurgeon.arch import granite
from headsurgeon.arch.layout import Layout


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Granite-MoE model."""
    return replace(granite.describe(config), mlp_up=None, mlp_down=None)
