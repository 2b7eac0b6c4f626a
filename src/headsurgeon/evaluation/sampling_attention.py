"""Keeps what some heads of a model attend to on a short piece of text, to be looked at later."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.arch import Layout
from headsurgeon.data import Windows
from headsurgeon.evaluation.attention_samples import (
    MOST_HEADS,
    MOST_TOKENS,
    SAMPLES,
    SAMPLES_BEFORE,
    AttentionSamples,
    packed_map,
)
from headsurgeon.heads import HeadId
from headsurgeon.measurement.one_head_map import attention_maps
from headsurgeon.models.forward import model_id
from headsurgeon.operation import Learner


def sample_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    windows: Windows,
    heads: Sequence[HeadId],
) -> AttentionSamples:
    """Attention of at most 64 heads on at most 48 tokens, the beginning of the first window.

    Args:
        tokenizer: what the tokens are called with.
        windows: at least one.
        heads: which heads; the first 64 of them are kept.

    Raises:
        Whatever `attention_map` raises.
    """
    tokens = windows.tokens[0, :MOST_TOKENS]
    maps = attention_maps(model, tokens, list(heads[:MOST_HEADS]))
    return AttentionSamples(
        model=model_id(model),
        corpus=windows.corpus,
        split=windows.split,
        tokens=tuple(str(tokenizer.decode([token])) for token in tokens.tolist()),
        maps={head: packed_map(weights) for head, weights in maps.items()},
    )


def keep_attention_of_run(
    learner: Learner, tokenizer: PreTrainedTokenizerBase, windows: Windows, folder: Path
) -> None:
    """Writes attention of the untouched and of the trained model into a run's folder.

    The learner is left as it was found: with what was trained in place.
    """
    heads = heads_to_sample(learner.plan.operated, learner.layout)
    trained = sample_attention(learner.model, tokenizer, windows, heads)
    learner.revert()
    untouched = sample_attention(learner.model, tokenizer, windows, heads)
    learner.reopen()
    trained.save(folder / SAMPLES)
    untouched.save(folder / SAMPLES_BEFORE)


def heads_to_sample(planned: Sequence[HeadId], layout: Layout) -> tuple[HeadId, ...]:
    """The planned heads and, of up to eight layers that have some, a head that is not; at most 64.

    The others are there to be compared with.
    """
    operated = set(planned)
    layers = sorted({head.layer for head in planned})
    beside = [
        next((HeadId(layer, h) for h in range(layout.heads) if (layer, h) not in operated), None)
        for layer in layers
    ]
    others = [head for head in beside if head is not None][:8]
    return (*planned[: MOST_HEADS - len(others)], *others)
