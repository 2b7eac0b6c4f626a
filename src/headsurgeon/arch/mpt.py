"""MPT: one `Wqkv` of three stacked blocks [(q, k, v), head, head_dim], no biases, may clip."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout, Projection
from headsurgeon.arch.slopes import interleaved


def describe(config: PretrainedConfig) -> Layout:
    """The layout of an MPT model.

    `transformers` adds ALiBi whatever `attn_config.alibi` says, and always with a maximum of 8:
    `alibi_bias_max` is ignored, and so it is here. The bias is built for `max_seq_len` positions,
    which bounds the window.
    """
    heads = config.n_heads
    head_dim = config.d_model // heads
    attention = "transformer.blocks.{layer}.attn"
    columns = tuple(head * head_dim for head in range(heads))

    def stacked(block: int) -> Projection:
        starts = tuple(block * config.d_model + start for start in columns)
        return Projection(f"{attention}.Wqkv", starts, bias=False)

    return Layout(
        family="mpt",
        layers=config.n_layers,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        hidden=config.d_model,
        scale=config.attn_config.softmax_scale or head_dim**-0.5,
        query=stacked(0),
        key=stacked(1),
        value=stacked(2),
        output=Projection(f"{attention}.out_proj", columns, axis=1, bias=False),
        mlp_up="transformer.blocks.{layer}.ffn.up_proj",
        mlp_down="transformer.blocks.{layer}.ffn.down_proj",
        slopes=interleaved(heads),
        clip=config.attn_config.clip_qkv or None,
        max_length=config.max_seq_len,
        initializer_range=config.initializer_range,
    )
