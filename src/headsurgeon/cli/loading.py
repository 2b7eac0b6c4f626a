"""Loading models and text for a command, with a line that says what is going on."""

from typing import TYPE_CHECKING

from headsurgeon.cli.console import busy

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.data import Windows

AUTO = "auto"


def quieten() -> None:
    """Keeps the progress bars and remarks of the libraries below off the terminal."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def open_model(
    spec: str, *, dtype: str, device: str, revision: str | None = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """`headsurgeon.load` with the options of the command line; raises as it does."""
    with busy(f"loading {spec}"):
        quieten()
        from headsurgeon.models import load

        return load(spec, revision=revision, dtype=dtype_of(dtype), device=device)


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
) -> "Windows":
    """`headsurgeon.windows` with a line that says so; raises as it does."""
    from headsurgeon.data import windows

    with busy(f"reading {corpus}"):
        return windows(corpus, tokenizer, split, length, count, seed, first_token)
