"""Why an architecture has no layout, where the reason is known: for the error message alone."""

from transformers import PretrainedConfig

_ENCODERS = """
albert bert big_bird camembert convbert data2vec-text deberta deberta-v2 distilbert electra ernie
esm eurobert mobilebert modernbert mpnet nomic_bert roberta roberta-prelayernorm rembert roformer
squeezebert xlm xlm-roberta xlm-roberta-xl xlnet
"""
_WITHOUT_ATTENTION = "falcon_mamba mamba mamba2 rwkv xlstm"
_HYBRIDS = """
bamba falcon_h1 granitemoehybrid jamba kimi_linear minimax nemotron_h olmo_hybrid
qwen3_5_text qwen3_next recurrent_gemma zamba zamba2
"""
_REASONS = {
    **dict.fromkeys(_ENCODERS.split(), "an encoder: it has no causal attention to diagnose"),
    **dict.fromkeys(_WITHOUT_ATTENTION.split(), "none of its layers attends"),
    **dict.fromkeys(
        _HYBRIDS.split(),
        "a hybrid, of which no description says which layers attend",
    ),
}


def reason(config: PretrainedConfig) -> str:
    """Why, in brackets after a space; empty where the architecture is merely not described."""
    if config.is_encoder_decoder:
        return " (an encoder–decoder: expected a decoder on its own)"
    why = _REASONS.get(config.model_type)
    return f" ({why})" if why else ""
