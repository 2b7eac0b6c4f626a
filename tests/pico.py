"""Models of a few thousand parameters, with random weights, built from configurations."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    MptConfig,
    MptForCausalLM,
    PreTrainedModel,
)

VOCABULARY = 97


def pico(
    family: str,
    seed: int = 0,
    heads: int = 4,
    layers: int = 3,
    hidden: int = 32,
    **over: Any,
) -> PreTrainedModel:
    """A tiny model of `family` in evaluation mode; no weight or bias is zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PICO[family](heads, layers, hidden, over)
    _randomise(model, seed)
    return model.eval()


def tokens(batch: int = 2, length: int = 12, seed: int = 0) -> torch.Tensor:
    """Random token ids [batch, length]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCABULARY, (batch, length), generator=generator)


def _randomise(model: PreTrainedModel, seed: int) -> None:
    # fresh models have zero biases and weights so small that every head is uniform
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.empty(parameter.shape).normal_(0.0, 0.2, generator=generator)
            norm_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1.0 + noise if norm_weight else noise)


def _bloom(heads: int, layers: int, hidden: int, over: dict[str, Any]) -> PreTrainedModel:
    return BloomForCausalLM(
        BloomConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            n_layer=layers,
            n_head=heads,
            **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, **over},
        )
    )


def _mpt(heads: int, layers: int, hidden: int, over: dict[str, Any]) -> PreTrainedModel:
    return MptForCausalLM(
        MptConfig(
            vocab_size=VOCABULARY,
            d_model=hidden,
            n_layers=layers,
            n_heads=heads,
            expansion_ratio=4,
            **{"max_seq_len": 512, **over},
        )
    )


def _mpt_clip(heads: int, layers: int, hidden: int, over: dict[str, Any]) -> PreTrainedModel:
    attention = {"clip_qkv": 0.5, "softmax_scale": 0.3}
    return _mpt(heads, layers, hidden, {"attn_config": attention, **over})


def _falcon(**fixed: Any) -> Callable[[int, int, int, dict[str, Any]], PreTrainedModel]:
    def build(heads: int, layers: int, hidden: int, over: dict[str, Any]) -> PreTrainedModel:
        settings = {"bos_token_id": 1, "eos_token_id": 2, "alibi": True, **fixed, **over}
        return FalconForCausalLM(
            FalconConfig(
                vocab_size=VOCABULARY,
                hidden_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                **settings,
            )
        )

    return build


PICO: dict[str, Callable[[int, int, int, dict[str, Any]], PreTrainedModel]] = {
    "bloom": _bloom,
    "mpt": _mpt,
    "mpt-clip": _mpt_clip,
    "falcon-rw": _falcon(
        multi_query=False, new_decoder_architecture=False, parallel_attn=False, bias=True
    ),
    "falcon-mq": _falcon(multi_query=True, new_decoder_architecture=False, bias=False),
    "falcon-new": _falcon(
        multi_query=True, new_decoder_architecture=True, num_kv_heads=2, bias=False
    ),
}
