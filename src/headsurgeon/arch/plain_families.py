"""Families in the common form whose description is data alone: a line or two each.

A family that needs code has a file of its own. `separate` says what the fields mean.
"""

from collections.abc import Callable
from typing import Any

from headsurgeon.arch.layout import Layout
from headsurgeon.arch.separate import same_window, separate, windows_by_type

_EXPERTS: dict[str, Any] = {"mlp": None}

# by `model_type`; c is the configuration
PLAIN_FAMILIES: dict[str, Callable[[Any], Layout]] = {
    # Command R: attention beside the MLP, optional norms per head, scaled logits
    "cohere": lambda c: separate(c, bias=c.attention_bias, logit_factor=c.logit_scale),
    # Command R7B: sliding windows with rotation, full layers without
    "cohere2": lambda c: separate(
        c, bias=c.attention_bias, windows=windows_by_type(c), logit_factor=c.logit_scale
    ),
    # rotation of a part of each head, no bias on the output, gate and up stacked
    "glm": lambda c: _glm(c),
    # differs from GLM in norms outside of attention alone
    "glm4": lambda c: _glm(c),
    # a learned sink per head, which stays frozen, and windows in every other layer
    "gpt_oss": lambda c: separate(
        c, bias=c.attention_bias, windows=windows_by_type(c), learned_sinks=True, **_EXPERTS
    ),
    # factors of its own on attention scores and logits
    "granite": lambda c: _granite(c),
    "granitemoe": lambda c: _granite(c, **_EXPERTS),
    # and what is saved as Llama: SmolLM, TinyLlama, Yi, DeepSeek-LLM and others
    "llama": lambda c: separate(c, bias=c.attention_bias),
    # one sliding window for all layers, or none
    "mistral": lambda c: separate(c, bias=False, windows=same_window(c)),
    "mixtral": lambda c: separate(c, bias=False, windows=same_window(c), **_EXPERTS),
    # what Q, K and V project may be clamped
    "olmo": lambda c: separate(c, bias=c.attention_bias, clip=c.clip_qkv),
    # one norm over the queries of all heads together, and one over all keys
    "olmo2": lambda c: separate(c, bias=c.attention_bias, joint_norm=True),
    "olmo3": lambda c: separate(
        c, bias=c.attention_bias, windows=windows_by_type(c), joint_norm=True
    ),
    # learned positions; its forward scales the queries itself, by the same factor
    "opt": lambda c: separate(
        c,
        bias=c.enable_bias,
        stack="model.decoder.layers.{layer}",
        output="out_proj",
        mlp=("fc1", "fc2"),
        initializer_range=c.init_std,
        max_length=c.max_position_embeddings,
    ),
    # Phi-1, 1.5 and 2: biases everywhere, rotation of a part of each head, optional norms
    "phi": lambda c: separate(c, bias=True, output="dense", mlp=("mlp.fc1", "mlp.fc2")),
    # and Qwen2.5: windows in the later layers
    "qwen2": lambda c: separate(c, bias=True, windows=windows_by_type(c)),
    "qwen2_moe": lambda c: separate(c, bias=c.qkv_bias, windows=windows_by_type(c), **_EXPERTS),
    # norms per head, whose weights heads share and which stay frozen
    "qwen3": lambda c: separate(c, bias=c.attention_bias, windows=windows_by_type(c)),
    "qwen3_moe": lambda c: separate(c, bias=c.attention_bias, windows=same_window(c), **_EXPERTS),
    # every fourth layer has no rotation, and perhaps a sliding window
    "smollm3": lambda c: separate(c, bias=c.attention_bias, windows=windows_by_type(c)),
    # rotation of a part of each head, optional norms per head; the output never has a bias
    "stablelm": lambda c: separate(c, bias=c.use_qkv_bias),
    # an MLP without a gate
    "starcoder2": lambda c: separate(
        c, bias=c.use_bias, mlp=("mlp.c_fc", "mlp.c_proj"), windows=same_window(c)
    ),
}


def _glm(config: Any) -> Layout:
    return separate(
        config,
        bias=config.attention_bias,
        mlp=("mlp.gate_up_proj", "mlp.down_proj"),
        mlp_up_start=config.intermediate_size,
    )


def _granite(config: Any, **differences: Any) -> Layout:
    return separate(
        config,
        bias=config.attention_bias,
        scale=config.attention_multiplier,
        logit_factor=1.0 / config.logits_scaling,
        **differences,
    )
