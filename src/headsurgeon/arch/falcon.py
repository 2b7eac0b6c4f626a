"""Falcon with ALiBi: three fused QKV orders, one per generation.

- falcon-rw (no multi-query): rows [head, (q, k, v), head_dim], as BLOOM;
- multi-query: rows [(q_0 … q_H−1, k, v), head_dim];
- new decoder: rows [kv_head, (q …, k, v), head_dim].
"""

import torch
from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout, Projection
from headsurgeon.arch.slopes import appended
from headsurgeon.errors import UnsupportedModel


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Falcon model with `alibi=True`.

    Falcon multiplies bf16-rounded slopes with the position in bf16 and then divides by √head_dim,
    so its bias is a staircase beyond 256 positions; the effective slope is bf16(m)/√head_dim.
    """
    if not config.alibi:
        raise UnsupportedModel(
            "Falcon with rotary positions (alibi=False) is not described; "
            "falcon-rw and other Falcons with alibi=True are"
        )
    heads = config.num_attention_heads
    head_dim = config.hidden_size // heads
    scale = head_dim**-0.5
    attention = "transformer.h.{layer}.self_attention"
    queries, keys, values = _row_blocks(config)

    def fused(rows: list[int]) -> Projection:
        starts = tuple(row * head_dim for row in rows)
        return Projection(f"{attention}.query_key_value", starts, bias=config.bias)

    return Layout(
        family="falcon",
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=len(keys),
        head_dim=head_dim,
        hidden=config.hidden_size,
        scale=scale,
        query=fused(queries),
        key=fused(keys),
        value=fused(values),
        output=Projection(
            f"{attention}.dense",
            tuple(head * head_dim for head in range(heads)),
            axis=1,
            bias=False,
        ),
        mlp_up="transformer.h.{layer}.mlp.dense_h_to_4h",
        mlp_down="transformer.h.{layer}.mlp.dense_4h_to_h",
        slopes=tuple(_in_bf16(slope) * scale for slope in appended(heads)),
        bias_dtype=torch.bfloat16,
        bias_factor=scale,
        initializer_range=config.initializer_range,
    )


def _row_blocks(config: PretrainedConfig) -> tuple[list[int], list[int], list[int]]:
    """Which block of head_dim rows holds each query, key and value head."""
    heads = config.num_attention_heads
    if config.new_decoder_architecture:
        groups = config.num_kv_heads
        share = heads // groups
        width = share + 2
        queries = [(head // share) * width + head % share for head in range(heads)]
        keys = [group * width + share for group in range(groups)]
        return queries, keys, [key + 1 for key in keys]
    if config.multi_query:
        return list(range(heads)), [heads], [heads + 1]
    return (
        [3 * h for h in range(heads)],
        [3 * h + 1 for h in range(heads)],
        [3 * h + 2 for h in range(heads)],
    )


def _in_bf16(slope: float) -> float:
    """Rounded once from fp32, whatever precision and device new tensors have in this process."""
    return float(torch.tensor(slope, dtype=torch.float32, device="cpu").to(torch.bfloat16))
