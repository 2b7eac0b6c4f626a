"""Phi-3: one `qkv_proj` of stacked blocks [queries | keys | values], gate and up stacked too."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout, Projection
from headsurgeon.arch.separate import STACK, common, head_dim, kv_heads, same_window


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a Phi-3 model; no biases."""
    dim, heads, groups = head_dim(config), config.num_attention_heads, kv_heads(config)

    def rows(first: int, count: int) -> Projection:
        starts = tuple((first + head) * dim for head in range(count))
        return Projection(f"{STACK}.self_attn.qkv_proj", starts, bias=False)

    columns = tuple(head * dim for head in range(heads))
    return Layout(
        **common(config),
        query=rows(0, heads),
        key=rows(heads, groups),
        value=rows(heads + groups, groups),
        output=Projection(f"{STACK}.self_attn.o_proj", columns, axis=1, bias=False),
        mlp_up=f"{STACK}.mlp.gate_up_proj",
        mlp_down=f"{STACK}.mlp.down_proj",
        mlp_up_start=config.intermediate_size,
        windows=same_window(config),
    )
