"""Models of a few thousand parameters for the families with rotary or learned positions."""

from typing import Any

import torch
import transformers as hf
from transformers import PreTrainedModel

from tests.pico import VOCABULARY, _randomise

# Odd numbers on purpose: a head width that is not hidden/heads, windows shorter than the texts.
_GROUPED = {"num_key_value_heads": 2}
_EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
_MANY_EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
_TYPES = ["sliding_attention", "full_attention"]

# name: model class, configuration class, what differs from the defaults below
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", _GROUPED),
    "llama-bias": ("Llama", {"attention_bias": True, "head_dim": 6, "num_key_value_heads": 1}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral": ("Mistral", {**_GROUPED, "sliding_window": 5}),
    "mistral-full": ("Mistral", {**_GROUPED, "sliding_window": None}),
    "qwen2": ("Qwen2", _GROUPED),
    "qwen2-window": (
        "Qwen2",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("Qwen3", {**_GROUPED, "head_dim": 12}),
    "qwen3-bias": ("Qwen3", {**_GROUPED, "head_dim": 12, "attention_bias": True}),
    "gemma2": (
        "Gemma2",
        {
            **_GROUPED,
            "head_dim": 12,
            "sliding_window": 5,
            "query_pre_attn_scalar": 7,
            "attn_logit_softcapping": 3.0,
        },
    ),
    "gemma3_text": (
        "Gemma3Text",
        {
            "num_key_value_heads": 1,
            "head_dim": 12,
            "sliding_window": 5,
            "query_pre_attn_scalar": 7,
            "layer_types": _TYPES,
        },
    ),
    # layers with attention on both sides of one without
    "lfm2": (
        "Lfm2",
        {
            **_GROUPED,
            "num_hidden_layers": 4,
            "full_attn_idxs": [0, 1, 3],
            "block_auto_adjust_ff_dim": False,
        },
    ),
    "lfm2_moe": (
        "Lfm2Moe",
        {
            **_GROUPED,
            **_MANY_EXPERTS,
            "num_hidden_layers": 4,
            "num_dense_layers": 1,
            "layer_types": ["full_attention", "full_attention", "conv", "full_attention"],
        },
    ),
    "gemma": ("Gemma", {"num_key_value_heads": 1, "head_dim": 12}),
    "glm": ("Glm", {**_GROUPED, "head_dim": 12, "attention_bias": False}),
    "glm4": ("Glm4", {**_GROUPED, "head_dim": 12}),
    "olmo": ("Olmo", _GROUPED),
    "olmo-clip": ("Olmo", {"clip_qkv": 0.5}),
    "olmo3": ("Olmo3", {**_GROUPED, "sliding_window": 5, "layer_types": _TYPES}),
    "mixtral": ("Mixtral", {**_GROUPED, **_EXPERTS, "sliding_window": 5}),
    "mixtral-full": ("Mixtral", {**_GROUPED, **_EXPERTS, "head_dim": 12}),
    "qwen2_moe": (
        "Qwen2Moe",
        {**_GROUPED, **_MANY_EXPERTS, "shared_expert_intermediate_size": 16},
    ),
    "qwen2_moe-window": (
        "Qwen2Moe",
        {
            **_GROUPED,
            **_MANY_EXPERTS,
            "shared_expert_intermediate_size": 16,
            "qkv_bias": False,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    "qwen3_moe": ("Qwen3Moe", {**_GROUPED, **_MANY_EXPERTS, "head_dim": 12}),
    "qwen3_moe-window": (
        "Qwen3Moe",
        {
            **_GROUPED,
            **_MANY_EXPERTS,
            "head_dim": 12,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    "phi": ("Phi", _GROUPED),
    "phi-norm": ("Phi", {**_GROUPED, "qk_layernorm": True}),
    "cohere2": ("Cohere2", {**_GROUPED, "sliding_window": 5, "layer_types": _TYPES}),
    "granitemoe": (
        "GraniteMoe",
        {**_GROUPED, **_EXPERTS, "attention_multiplier": 0.3, "logits_scaling": 3.0},
    ),
    "phi3": ("Phi3", {**_GROUPED, "sliding_window": 5}),
    "phi3-full": ("Phi3", _GROUPED),
    "gpt_neox": ("GPTNeoX", {}),
    "gpt_neox-nobias": ("GPTNeoX", {"attention_bias": False}),
    "gpt2": ("GPT2", {}),
    "gpt2-inverse": ("GPT2", {"scale_attn_by_inverse_layer_idx": True}),
    "opt": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "opt-nobias": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 32, "enable_bias": False}),
    "gpt_oss": (
        "GptOss",
        {
            **_GROUPED,
            **_EXPERTS,
            "head_dim": 12,
            "sliding_window": 5,
        },
    ),
    "olmo2": ("Olmo2", _GROUPED),
    "stablelm": ("StableLm", {**_GROUPED, "use_qkv_bias": True}),
    "stablelm-norm": ("StableLm", {**_GROUPED, "qk_layernorm": True}),
    "starcoder2": ("Starcoder2", {**_GROUPED, "sliding_window": 5}),
    "granite": ("Granite", {**_GROUPED, "attention_multiplier": 0.3, "logits_scaling": 3.0}),
    "smollm3": ("SmolLM3", {**_GROUPED, "no_rope_layers": [1, 0]}),
    "smollm3-window": (
        "SmolLM3",
        {
            **_GROUPED,
            "no_rope_layers": [1, 0],
            "use_sliding_window": True,
            "sliding_window": 5,
        },
    ),
    "cohere": ("Cohere", _GROUPED),
    "cohere-norm": ("Cohere", {**_GROUPED, "use_qk_norm": True}),
}
NAMES = sorted(VARIANTS)


def pico_family(
    name: str, seed: int = 0, attention: str | None = None, **over: Any
) -> PreTrainedModel:
    """A tiny model in evaluation mode, layers 0 and 1 of four heads; no weight or bias is zero.

    Args:
        name: a name in `VARIANTS`.
        attention: `eager` or `sdpa`; by default what `transformers` chooses.
    """
    stem, differences = VARIANTS[name]
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }
    class_names = {"Gemma3Text": "Gemma3"}
    config = getattr(hf, f"{stem}Config")(**{**settings, **differences, **over})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen = {} if attention is None else {"attn_implementation": attention}
        model_class = getattr(hf, f"{class_names.get(stem, stem)}ForCausalLM", None)
        if model_class is None:
            model_class = getattr(hf, f"{stem}LMHeadModel")
        model: PreTrainedModel = model_class._from_config(config, **chosen)
    _randomise(model, seed)
    return model.eval()


def pico_gemma3_with_images(seed: int = 0) -> PreTrainedModel:
    """The text model `gemma3_text` inside a model that also reads images."""
    text = pico_family("gemma3_text", seed)
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = hf.Gemma3Config(
        text_config=text.config.to_dict(),
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=VOCABULARY + 1,
    )
    model = hf.Gemma3ForConditionalGeneration(config)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.lm_head.load_state_dict(text.lm_head.state_dict())
    return model.eval()
