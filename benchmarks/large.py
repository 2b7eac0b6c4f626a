"""On paper: what models of 70 and 176 billion parameters need for a diagnosis and for pass 1.

python benchmarks/large.py

Parameters are counted on models without content. Training takes, for each slice parameter, 4 bytes
of itself, 4 of its gradient, 8 of AdamW's moments and 2 of the stock value, and with checkpointing
the input of every layer in bf16. For BLOOM-1b7 that gives 2.1 GB, as `memory_plan` does. Nothing of
it has been run on such a model.
"""

from typing import Any

import torch
from machine import write
from transformers import BloomConfig, LlamaConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from headsurgeon.arch import layout_of

CONFIGS: dict[str, PretrainedConfig] = {
    "BLOOM-176B": BloomConfig(vocab_size=250_880, hidden_size=14_336, n_layer=70, n_head=112),
    "Llama-70B": LlamaConfig(
        vocab_size=128_256,
        hidden_size=8_192,
        intermediate_size=28_672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        max_position_embeddings=8_192,
    ),
}
# a diagnosis of 64 windows of 2,048 tokens; a step of one window of 512, as the paper's
WINDOWS, LENGTH, STEP_LENGTH = 64, 2_048, 512


def needs(name: str, config: PretrainedConfig) -> dict[str, Any]:
    """Bytes and operations of one model in bf16."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    layout = layout_of(model)
    total = sum(parameter.numel() for parameter in model.parameters())
    prefix = layout.output.path(1).partition(".1.")[0] + ".1."
    layer = sum(part.numel() for path, part in model.named_parameters() if path.startswith(prefix))
    tokens = WINDOWS * LENGTH
    hidden = int(config.hidden_size)
    attention = 2 * LENGTH * layout.heads * layout.head_dim * layout.layers
    # the share of heads and layers of the paper's pass 1, whole key/value groups of them
    shared = layout.heads // layout.kv_heads
    groups = layout.kv_heads - round(layout.kv_heads * 9 / 16)
    layers = round(layout.layers * 18 / 24)
    slices = layers * groups * (2 * shared + 2) * hidden * layout.head_dim
    inputs = 2 * STEP_LENGTH * hidden * layout.layers
    return {
        "model": name,
        "parameters": total,
        "weights": 2 * total,
        "layer_weights": 2 * layer,
        "hidden_states": 4 * tokens * hidden,
        "flop": tokens * (2 * layer * layout.layers + attention),
        "heads": layers * groups * shared,
        "slices": slices,
        "training": 18 * slices + inputs,
    }


def main() -> None:
    write("large", {"rows": [needs(name, config) for name, config in CONFIGS.items()]})


if __name__ == "__main__":
    main()
