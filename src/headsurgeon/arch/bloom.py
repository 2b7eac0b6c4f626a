"""BLOOM: fused QKV interleaved head-wise, rows [head, (q, k, v), head_dim]; bias on all four."""

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout, Projection
from headsurgeon.arch.slopes import appended
from headsurgeon.errors import UnsupportedModel


def describe(config: PretrainedConfig) -> Layout:
    """The layout of a BLOOM model; ALiBi adds m·position after the scores are scaled."""
    if config.pretraining_tp > 1 and config.slow_but_exact:
        raise UnsupportedModel(
            "BLOOM with slow_but_exact reads its output projection in parts; "
            "set slow_but_exact=False in the configuration"
        )
    heads = config.n_head
    head_dim = config.hidden_size // heads
    attention = "transformer.h.{layer}.self_attention"

    def fused(offset: int) -> Projection:
        starts = tuple((3 * head + offset) * head_dim for head in range(heads))
        return Projection(f"{attention}.query_key_value", starts)

    return Layout(
        family="bloom",
        layers=config.n_layer,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        hidden=config.hidden_size,
        scale=head_dim**-0.5,
        query=fused(0),
        key=fused(1),
        value=fused(2),
        output=Projection(
            f"{attention}.dense",
            tuple(head * head_dim for head in range(heads)),
            axis=1,
            bias=False,
        ),
        mlp_up="transformer.h.{layer}.mlp.dense_h_to_4h",
        mlp_down="transformer.h.{layer}.mlp.dense_4h_to_h",
        slopes=appended(heads),
        initializer_range=config.initializer_range,
        rounds_scores=True,
        slow_gelu="transformer.h.{layer}.mlp.gelu_impl",
    )
