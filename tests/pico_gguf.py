"""A tiny Llama as a `.gguf` file, written the way llama.cpp's converter writes one."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from transformers import PreTrainedModel

from tests.pico import VOCABULARY

# names of a decoder layer's weights: here, in llama.cpp
_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    *,
    quantised: bool = False,
    without: str = "",
    architecture: str = "llama",
    tokens: int = VOCABULARY,
) -> None:
    """Writes a pico Llama in fp32, or with its matrices as Q8_0.

    Args:
        without: leaves out the weight of that name, as llama.cpp calls it.
        architecture: what the file says it is.
        tokens: size of the tokenizer's vocabulary.
    """
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    characters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    pieces = [*characters, "Ġ", "th", "</s>"]
    pieces += [f"x{index}" for index in range(tokens - len(pieces))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(pieces)
    writer.add_token_types([1] * len(pieces))
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(pieces.index("</s>"))
    writer.add_eos_token_id(pieces.index("</s>"))
    for name, values in _weights(model).items():
        if name == without:
            continue
        if quantised and values.ndim == 2:
            packed = quants.quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights(model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Every weight under llama.cpp's name, queries and keys in its order for the rotation."""
    state = {name: tensor.float().numpy() for name, tensor in model.state_dict().items()}
    heads = {
        "self_attn.q_proj": model.config.num_attention_heads,
        "self_attn.k_proj": model.config.num_key_value_heads,
    }
    found = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    for layer in range(model.config.num_hidden_layers):
        for here, there in _LAYER.items():
            values = state[f"model.layers.{layer}.{here}.weight"]
            if here in heads:
                rows, width = values.shape
                halves = values.reshape(heads[here], 2, rows // heads[here] // 2, width)
                values = halves.swapaxes(1, 2).reshape(rows, width).copy()
            found[f"blk.{layer}.{there}.weight"] = values
    return found
