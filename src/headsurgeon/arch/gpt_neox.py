"""GPT-NeoX and Pythia: fused QKV interleaved head-wise, rows [head, (q, k, v), head_dim]."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout, Projection
from headsurgeon.arch.separate import common, head_dim


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a GPT-NeoX model; rotation of a part of each head follows the projection."""
    dim, heads = head_dim(config), config.num_attention_heads
    stack = "gpt_neox.layers.{layer}"

    def fused(offset: int) -> Projection:
        starts = tuple((3 * head + offset) * dim for head in range(heads))
        return Projection(f"{stack}.attention.query_key_value", starts, bias=config.attention_bias)

    columns = tuple(head * dim for head in range(heads))
    return Layout(
        **common(config),
        query=fused(0),
        key=fused(1),
        value=fused(2),
        output=Projection(f"{stack}.attention.dense", columns, axis=1, bias=False),
        mlp_up=f"{stack}.mlp.dense_h_to_4h",
        mlp_down=f"{stack}.mlp.dense_4h_to_h",
    )
