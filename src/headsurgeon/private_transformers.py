"""Every name of transformers that is private, or public without a promise, and is used here.

Nothing here imports transformers until it is asked.
"""

from headsurgeon.private_names import PrivateName

PACKAGE = "transformers"
# the versions that tests ran on: the lowest, with the whole suite, and the newest, with part of it
TESTED = ("5.21.1", "5.24.0")
NAMES: tuple[PrivateName, ...] = (
    PrivateName(
        "transformers.AttentionInterface._global_mapping",
        "measuring beside the attention that runs (measurement/attention_interface.py)",
    ),
    *(
        PrivateName(
            f"transformers.PretrainedConfig().{name}",
            "choosing the attention that runs (measurement/attention_interface.py)",
        )
        for name in ("_attn_implementation", "_attn_implementation_internal")
    ),
    PrivateName(
        "transformers.PretrainedConfig()._commit_hash",
        "which commit of the Hub a model is (models/origin.py)",
        optional=True,
    ),
    PrivateName(
        "transformers.PreTrainedModel._keys_to_ignore_on_load_unexpected",
        "stored tensors that a model leaves out on purpose (models/unread.py)",
    ),
    PrivateName(
        "transformers.masking_utils.ALL_MASK_ATTENTION_FUNCTIONS",
        "masks of an attention of our own (measurement/attention_interface.py)",
    ),
    PrivateName(
        "transformers.masking_utils.AttentionMaskInterface",
        "masks of an attention of our own (attention/fast_passes.py)",
    ),
    PrivateName(
        "transformers.modeling_utils.ALL_ATTENTION_FUNCTIONS",
        "telling the library's attention from changed ones (arch/identity.py)",
    ),
    PrivateName(
        "transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING",
        "telling the library's models from changed ones (arch/identity.py)",
    ),
    *(
        PrivateName(
            f"transformers.modeling_gguf_pytorch_utils.{name}",
            "what a GGUF file holds and the reader leaves out (models/gguf_unread.py)",
        )
        for name in ("TENSOR_PROCESSORS", "TensorProcessor", "get_gguf_hf_weights_map")
    ),
    PrivateName("transformers.utils.SAFE_WEIGHTS_INDEX_NAME", "names of weight files"),
    PrivateName("transformers.utils.SAFE_WEIGHTS_NAME", "names of weight files"),
    PrivateName("transformers.utils.hub.cached_file", "stored tensors (models/stored.py)"),
    PrivateName(
        "transformers.utils.quantization_config.QuantizationConfigMixin", "models in few bits"
    ),
)
