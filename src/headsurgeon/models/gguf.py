"""Single `.gguf` files: read with the package `gguf`, dequantised into an ordinary model.

The weights are those the quantised file stands for, rounded to the dtype that was asked for; they
can be measured, operated on and saved like any other checkpoint.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from headsurgeon.arch import layout_for
from headsurgeon.errors import HeadsurgeonError, ModelError
from headsurgeon.extras import require
from headsurgeon.models.checks import check_complete
from headsurgeon.models.gguf_once import parsed_once
from headsurgeon.models.gguf_unread import check_metadata, check_tensors
from headsurgeon.models.unread import check_no_adapter, check_tied

SUFFIX = ".gguf"
MAGIC = b"GGUF"


def load_gguf(
    path: Path, dtype: torch.dtype | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and the tokenizer in a GGUF file, on the CPU.

    Args:
        path: the file; one of a model in several parts is refused.
        dtype: of the weights; the file's own where it is not quantised, and fp32 elsewhere, unless
            given.

    Raises:
        ModelError: no such file, the package `gguf` is missing, or the file is damaged.
        UnsupportedModel: no layout describes the architecture; raised before weights are read.
    """
    require("gguf", f"{path}: reading GGUF files")
    with parsed_once(), _reading(path):
        config = gguf_config(path)
        layout_for(config)
        where = str(path.parent)
        # a pair with output_loading_info, which its annotation leaves out
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            gguf_file=path.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=dtype or "auto",
            output_loading_info=True,
        )
        model: PreTrainedModel = loaded[0]
        check_complete(str(path), loaded[1]["missing_keys"])
        check_tensors(path, model)
        check_tied(str(path), model)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            where, gguf_file=path.name
        )
    return model, tokenizer


def gguf_config(path: Path) -> PretrainedConfig:
    """The configuration that a GGUF file describes; raises as `load_gguf` does."""
    require("gguf", f"{path}: reading GGUF files")
    with _reading(path):
        check_no_adapter(str(path), (beside.name for beside in path.parent.iterdir()))
        with path.open("rb") as opened:
            start = opened.read(len(MAGIC))
        if start != MAGIC:
            raise ModelError(f"{path}: expected a GGUF file, which begins with {MAGIC.decode()}")
        config: PretrainedConfig = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
        check_metadata(path, config)
    return config


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except HeadsurgeonError:
        raise
    # the readers below raise a dozen kinds on bytes that are not what they take them for
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{path}: cannot be read as a GGUF model; it may be damaged, incomplete, or of a kind "
            f"that transformers cannot read: {reason}"
        ) from error
