"""The loss of a text: token-weighted, and kept per document so that models can be compared."""

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.arguments import checked
from headsurgeon.attention.choice import attending, choose_attention
from headsurgeon.attention_kinds import AttentionChoice, AttentionRan
from headsurgeon.data import Texts, Windows, equal_parts
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
from headsurgeon.models.token_loss import token_nll
from headsurgeon.scores import Evaluation


@checked
@usual_defaults()
def evaluate(
    model: PreTrainedModel,
    windows: Windows | Texts | Tensor,
    *,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> Evaluation:
    """Scores every token of every window but its first.

    Args:
        windows: equal windows, or bare token ids [count, length]; each window starts without
            knowledge of the one before. Or unequal texts (`headsurgeon.texts`).
        batch_size: windows per forward pass; by default about 4,096 tokens.
        attention: `stock`, `fast`, or `auto`: the model's own forward in 16 bit, where ours rounds
            less than the model that will run; see `headsurgeon.attention_kinds`.
        on_windows: told after each batch how many windows were read; see `OnWindows`.

    Raises:
        ModelError: a loss is not a finite number; names the window and its document.
        UnsupportedModel, SettingsError, CorpusError: as `measure`.
    """
    parts = equal_parts(windows)
    names = list(dict.fromkeys(_documents(windows, parts)))
    position = {name: index for index, name in enumerate(names)}
    nll, tokens, lengths = np.zeros((3, len(names)))
    layout = layout_of(model)
    for part in parts:
        check_windows(part.tokens, layout, model)
    check_own_loss(model, parts[-1].tokens[:1])
    if choose_attention(model, attention) != "stock":
        check_own_attention(model, layout, parts[-1].tokens[:1])
    for part in parts:
        losses, used = _window_losses(model, part, batch_size, attention, on_windows)
        for name, loss in zip(part.documents, losses, strict=True):
            nll[position[name]] += loss
            tokens[position[name]] += part.length - 1
            lengths[position[name]] += part.length
    longest = parts[-1]
    return Evaluation(
        model=model_id(model),
        corpus=longest.corpus,
        split=longest.split,
        length=longest.length,
        stride=longest.length - longest.prefix,
        corpus_hash=longest.corpus_hash,
        count=sum(len(part) for part in parts),
        first_token=longest.first_token,
        seed=longest.seed,
        documents=tuple(names),
        document_nll=nll,
        document_tokens=tokens,
        attention=used,
        packing=longest.packing,
        document_lengths=lengths,
    )


def _documents(windows: Windows | Texts | Tensor, parts: Sequence[Windows]) -> Sequence[str]:
    """Names in the order in which they were given."""
    return windows.documents if isinstance(windows, Texts) else parts[0].documents


def _window_losses(
    model: PreTrainedModel,
    windows: Windows,
    batch_size: int | None,
    attention: AttentionChoice,
    on_windows: OnWindows | None,
) -> tuple[list[float], AttentionRan]:
    """Summed loss of each window, nats, and the attention that ran."""
    losses: list[float] = []
    with evaluating(model), attending(model, attention) as used:
        for batch in batches(windows.tokens, batch_size, on_windows):
            losses += token_nll(model, batch.to(model.device)).cpu().double().sum(-1).tolist()
    _check_finite(losses, windows, model)
    return losses, used


def _check_finite(losses: Sequence[float], windows: Windows, model: PreTrainedModel) -> None:
    """A sum with one such loss says nothing about the others, and no gate may take it for one."""
    bad = [index for index, loss in enumerate(losses) if not math.isfinite(loss)]
    if bad:
        raise ModelError(
            f"{model_id(model)}: the loss of {len(bad)} of {len(losses)} windows is not a finite "
            f"number ({losses[bad[0]]} in window {bad[0]}, {windows.documents[bad[0]]}); in 16 bit "
            "numbers may overflow: evaluate in fp32, or look for damaged weights"
        )
