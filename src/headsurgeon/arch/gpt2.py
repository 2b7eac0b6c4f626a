"""GPT-2: `Conv1D` keeps weights as [in, out], so heads lie on axis 1 of `c_attn`, 0 of `c_proj`."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout, Projection
from headsurgeon.arch.separate import common, head_dim
from headsurgeon.errors import UnsupportedModel


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a GPT-2 model; `c_attn` has the stacked columns [(q, k, v), head, head_dim].

    Positions are learned, so windows cannot be longer than `n_positions`. With
    `scale_attn_by_inverse_layer_idx` layer n divides the scale by n + 1 on its own.
    """
    if config.add_cross_attention or config.reorder_and_upcast_attn:
        raise UnsupportedModel(
            "GPT-2 with add_cross_attention or reorder_and_upcast_attn takes another path through "
            "attention; set them to False in the configuration"
        )
    dim, heads = head_dim(config), config.num_attention_heads
    stack = "transformer.h.{layer}"
    shares = tuple(head * dim for head in range(heads))

    def stacked(block: int) -> Projection:
        starts = tuple(block * config.hidden_size + start for start in shares)
        return Projection(f"{stack}.attn.c_attn", starts, axis=1)

    return Layout(
        **common(config)
        | {
            "scale": dim**-0.5 if config.scale_attn_weights else 1.0,
            "max_length": config.max_position_embeddings,
        },
        query=stacked(0),
        key=stacked(1),
        value=stacked(2),
        output=Projection(f"{stack}.attn.c_proj", shares, axis=0, bias=False),
        mlp_up=f"{stack}.mlp.c_fc",
        mlp_down=f"{stack}.mlp.c_proj",
        mlp_axis=1,
    )
