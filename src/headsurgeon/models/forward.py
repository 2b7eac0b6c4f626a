"""Running a model over token windows without leaving a trace."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.errors import CorpusError, HeadsurgeonWarning, SettingsError

TOKENS_PER_BATCH = 4096

OnWindows = Callable[[int], None]
"""Called after each batch with how many windows were read since the last call.

A window counts each time it is read: where a function reads all windows p times, the numbers of
one call sum to p times their count. What it raises ends the call, and leaves the model as it was.
"""


def model_id(model: PreTrainedModel) -> str:
    """The name a model was loaded under; `unnamed` for one built in memory."""
    return model.name_or_path or "unnamed"


@contextmanager
def usual_defaults() -> Iterator[None]:
    """While open, new tensors are fp32 and on the CPU unless told otherwise, as torch comes.

    Figures must not depend on what else the process does; models, too, make tensors of the default
    precision during their forward pass. Autocast stays: that is how the model is meant to run.
    """
    dtype = torch.get_default_dtype()
    elsewhere = torch.get_default_device().type != "cpu"
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu") if elsewhere else nullcontext():
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switches dropout off; afterwards every module has the training flag it had."""
    flags = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


def batches(
    tokens: Int[Tensor, "count length"],
    batch_size: int | None = None,
    on_windows: OnWindows | None = None,
) -> Iterator[Int[Tensor, "batch length"]]:
    """Windows in batches of `batch_size`, by default of about 4,096 tokens.

    `on_windows` is told of a batch when the next is asked for.

    Raises:
        SettingsError: a batch size below 1 or beyond 31 bits.
    """
    if batch_size is not None and not (isinstance(batch_size, int) and 1 <= batch_size < 2**31):
        raise SettingsError("batch_size: expected 1 to 2^31 − 1 windows")
    size = batch_size or max(1, TOKENS_PER_BATCH // tokens.shape[1])
    for start in range(0, len(tokens), size):
        batch = tokens[start : start + size]
        yield batch
        if on_windows is not None:
            on_windows(len(batch))


def check_windows(
    tokens: Int[Tensor, "count length"], layout: Layout, model: PreTrainedModel
) -> None:
    """Raises before a forward pass would fail deep inside the model.

    Warns:
        HeadsurgeonWarning: windows longer than the configuration names; the model reads them all
            the same, perhaps worse than it was trained to.

    Raises:
        SettingsError: no windows, windows of one token, or longer than the model can read.
        CorpusError: token ids beyond the model's vocabulary, or padding.
    """
    count, length = tokens.shape
    if count == 0 or length < 2:
        raise SettingsError(f"expected windows of at least 2 tokens, got {count} of {length}")
    if layout.max_length is not None and length > layout.max_length:
        raise SettingsError(
            f"windows of {length} tokens are longer than the {layout.max_length} this model can "
            "read; choose a smaller --length"
        )
    if layout.trained_length is not None and length > layout.trained_length:
        warnings.warn(
            f"windows of {length} tokens are longer than the {layout.trained_length} this model is "
            "configured for; it reads them as it is",
            category=HeadsurgeonWarning,
            stacklevel=3,
        )
    vocabulary = len(model.get_input_embeddings().get_parameter("weight"))
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0:
        raise CorpusError(
            f"token id {lowest} is below 0; labels to be ignored (-100) are no tokens, and windows "
            "are whole"
        )
    if highest >= vocabulary:
        raise CorpusError(
            f"token id {highest} is outside the model's vocabulary of {vocabulary}; "
            "the tokenizer does not belong to this model"
        )
    _check_padding(tokens, model)


def _check_padding(tokens: Int[Tensor, "count length"], model: PreTrainedModel) -> None:
    """Refuses runs of padding at either end: without a mask they would count as text.

    Where the padding token has another meaning too, or stands alone, there is no telling.
    """
    config = model.config.get_text_config()
    pad = config.pad_token_id
    ends = config.eos_token_id
    others = {config.bos_token_id, *(ends if isinstance(ends, list) else [ends])}
    if pad is None or pad in others:
        return
    padded = ((tokens[:, :2] == pad).all(1) | (tokens[:, -2:] == pad).all(1)).nonzero()
    if len(padded):
        raise CorpusError(
            f"window {int(padded[0])} begins or ends with padding (token {pad}); "
            "expected whole windows of equal length, as headsurgeon.windows makes them"
        )
