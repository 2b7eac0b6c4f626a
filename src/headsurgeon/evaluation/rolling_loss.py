"""The loss that lm-evaluation-harness would report, on rolling windows; see `data.rolling`."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.arguments import checked
from headsurgeon.attention.choice import attending, choose_attention
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.data.rolling import RollingWindows
from headsurgeon.errors import ModelError
from headsurgeon.measurement.own_forward import check_own_attention, check_own_loss
from headsurgeon.models.forward import (
    OnWindows,
    batches,
    check_windows,
    evaluating,
    model_id,
    usual_defaults,
)
from headsurgeon.models.token_loss import continuation_nll
from headsurgeon.scores import Evaluation

PACKING = "rolling, as lm-eval"


@checked
@usual_defaults()
def evaluate_rolling(
    model: PreTrainedModel,
    windows: RollingWindows,
    *,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> Evaluation:
    """Scores every token of every document once, the first of each from the prefix token.

    Windows of one length run together and nothing is padded, so that a document's loss does not
    depend on what stands beside it.

    Args:
        windows: from `rolling_windows`.
        batch_size: windows per forward pass; by default about 4,096 tokens.
        attention: `stock`, `fast` or `auto`, as `evaluate`.
        on_windows: told after each batch how many windows were read; see `OnWindows`.

    Raises:
        ModelError: a loss is not a finite number; names the document.
        UnsupportedModel, SettingsError, CorpusError: as `measure`.
    """
    names = list(dict.fromkeys(windows.documents))
    position = {name: index for index, name in enumerate(names)}
    nll, tokens = np.zeros((2, len(names)))
    layout = layout_of(model)
    example = _read(max(windows.tokens, key=len)[None])
    check_own_loss(model, example)
    if choose_attention(model, attention) != "stock":
        check_own_attention(model, layout, example)
    with evaluating(model), attending(model, attention) as used:
        for places in _by_length(windows):
            rows = torch.stack([windows.tokens[place] for place in places])
            check_windows(_read(rows), layout, model)
            losses: list[list[float]] = []
            for batch in batches(rows, batch_size, on_windows):
                token_losses = continuation_nll(model, batch.to(model.device))
                losses += token_losses.cpu().double().tolist()
            for place, loss in zip(places, losses, strict=True):
                counted = windows.predicted[place]
                index = position[windows.documents[place]]
                nll[index] += sum(loss[-counted:])
                tokens[index] += counted
    bad = [name for name, loss in zip(names, nll, strict=True) if not math.isfinite(loss)]
    if bad:
        raise ModelError(
            f"{model_id(model)}: the loss of {len(bad)} of {len(names)} documents is not a finite "
            f"number ({bad[0]}); in 16 bit numbers may overflow: evaluate in fp32, or look for "
            "damaged weights"
        )
    return Evaluation(
        model=model_id(model),
        corpus=windows.corpus,
        split=windows.split,
        length=windows.length,
        stride=windows.length,
        corpus_hash=windows.corpus_hash,
        count=len(windows),
        first_token=windows.first_token,
        seed=0,
        documents=tuple(names),
        document_nll=nll,
        document_tokens=tokens,
        attention=used,
        packing=PACKING,
    )


def _read(rows: Int[Tensor, "count length"]) -> Int[Tensor, "count read"]:
    """What the model reads of windows: all but the last token, but two tokens at the least."""
    return rows[:, : max(2, rows.shape[1] - 1)]


def _by_length(windows: RollingWindows) -> Iterator[list[int]]:
    """Places of the windows of each length."""
    lengths = [len(ids) for ids in windows.tokens]
    for length in sorted(set(lengths)):
        yield [place for place, own in enumerate(lengths) if own == length]
