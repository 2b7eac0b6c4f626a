"""Loading models and text for a command, with a line that says what is going on."""

import logging
from typing import TYPE_CHECKING, Any

from headsurgeon.cli.option_texts import memory_limits
from headsurgeon.cli.options import FrozenLoading, Loading
from headsurgeon.cli.progress import busy
from headsurgeon.errors import SettingsError
from headsurgeon.extras import installed, require

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.data import Texts, Windows

AUTO = "auto"


def quieten() -> None:
    """Keeps the progress bars and remarks of the libraries below off the terminal."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    # it says once per layer and batch that inputs are rounded to fp16
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    if installed("datasets"):
        import datasets

        datasets.disable_progress_bars()


def open_model(spec: str, loading: Loading) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """`headsurgeon.load` with the options of the command line; raises as it does."""
    limits: dict[str, Any] = {}
    if isinstance(loading, FrozenLoading):
        if loading.max_memory is not None:
            limits["max_memory"] = memory_limits(loading.max_memory)
        if loading.quantise is not None:
            limits["quantization_config"] = _few_bits(loading.quantise)
    with busy(f"loading {spec}"):
        quieten()
        from headsurgeon.models import load

        return load(
            spec,
            tokenizer=loading.tokenizer,
            dtype=dtype_of(loading.dtype),
            device=loading.device,
            trust_remote_code=loading.trust_remote_code,
            **limits,
        )


def _few_bits(name: str) -> "BitsAndBytesConfig":
    if name not in ("8bit", "4bit"):
        raise SettingsError(f"--quantise: expected 8bit or 4bit, got {name!r}")
    require("bitsandbytes", "--quantise")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=name == "8bit", load_in_4bit=name == "4bit")


def dtype_of(name: str) -> "torch.dtype | None":
    """The dtype of that short name; None for `auto`."""
    from headsurgeon.models.device import pick_dtype

    return None if name == AUTO else pick_dtype(name)


def read_windows(
    corpus: str,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    split: str,
    length: int,
    count: int | None,
    seed: int,
    first_token: str = "tokenizer",
    packing: str = "documents",
) -> "Windows | Texts":
    """`headsurgeon.windows` with a line that says so; raises as it does.

    The texts of `texts:FILE` are read whole, so that nothing but the first token applies to them.
    """
    from headsurgeon.data import given_file, texts, windows

    with busy(f"reading {corpus}"):
        given = given_file(corpus)
        if given is not None:
            return texts(given, tokenizer, first_token=first_token, name=corpus)
        return windows(corpus, tokenizer, split, length, count, seed, first_token, packing=packing)
