"""The common form: separate Q, K, V and output projections, rotary positions, grouped queries.

Most decoders since Llama have it. A family's file says what differs: biases, scale, sliding
windows, names. Norms of Q and K and the rotation come after the projections, so such a family is
observed where it calls `transformers`' attention interface.
"""

from typing import Any

from transformers import PretrainedConfig

from headsurgeon.arch.layout import Layout, Projection

STACK = "model.layers.{layer}"


def separate(
    config: PretrainedConfig,
    *,
    bias: bool,
    stack: str = STACK,
    attention: str = "self_attn",
    output: str = "o_proj",
    mlp: tuple[str, str] | None = ("mlp.up_proj", "mlp.down_proj"),
    **differences: Any,
) -> Layout:
    """A layout with `q_proj`, `k_proj` and `v_proj`, each with rows [head, head_dim].

    Args:
        config: the configuration; head counts and widths have their usual names there.
        bias: whether Q, K and V have biases.
        stack: path of one decoder layer, with `{layer}`.
        attention: name of the attention module in it.
        output: name of the output projection in the attention module.
        mlp: names of the first and last MLP projection in the decoder layer; None without.
        differences: further fields of `Layout`, or others than these.
    """
    dim = head_dim(config)

    def projection(name: str, count: int, axis: int = 0) -> Projection:
        starts = tuple(head * dim for head in range(count))
        return Projection(f"{stack}.{attention}.{name}", starts, axis, bias and axis == 0)

    return Layout(
        **{
            **common(config),
            "query": projection("q_proj", config.num_attention_heads),
            "key": projection("k_proj", kv_heads(config)),
            "value": projection("v_proj", kv_heads(config)),
            "output": projection(output, config.num_attention_heads, axis=1),
            "mlp_up": f"{stack}.{mlp[0]}" if mlp else None,
            "mlp_down": f"{stack}.{mlp[1]}" if mlp else None,
            **differences,
        }
    )


def common(config: PretrainedConfig) -> dict[str, Any]:
    """The fields of `Layout` that follow from a configuration's usual names alone."""
    return {
        "family": config.model_type,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": kv_heads(config),
        "head_dim": head_dim(config),
        "hidden": config.hidden_size,
        "scale": head_dim(config) ** -0.5,
        "slopes": (0.0,) * config.num_attention_heads,
        "trained_length": config.max_position_embeddings,
        "observed": "interface",
        "initializer_range": getattr(config, "initializer_range", 0.02),
    }


def head_dim(config: PretrainedConfig) -> int:
    """Width of one head: as configured, or the residual stream's share."""
    configured: int | None = getattr(config, "head_dim", None)
    return configured or config.hidden_size // config.num_attention_heads


def kv_heads(config: PretrainedConfig) -> int:
    """Key/value heads: as configured, or one for each query head."""
    configured: int | None = getattr(config, "num_key_value_heads", None)
    return configured or config.num_attention_heads


def same_window(config: PretrainedConfig) -> tuple[int | None, ...]:
    """Sliding windows where all layers have the one of the configuration, or none."""
    return tuple(config.sliding_window for _ in range(config.num_hidden_layers))


def windows_by_type(config: PretrainedConfig) -> tuple[int | None, ...]:
    """Sliding windows where `layer_types` says which layers have one."""
    return tuple(
        config.sliding_window if kind == "sliding_attention" else None
        for kind in config.layer_types[: config.num_hidden_layers]
    )
