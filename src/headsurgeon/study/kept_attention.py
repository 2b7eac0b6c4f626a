"""Attention of a cell's heads on a piece of test text, kept beside its result for its page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.arch import layout_of
from headsurgeon.data import Texts, Windows
from headsurgeon.evaluation.attention_samples import SAMPLES
from headsurgeon.evaluation.sampling_attention import heads_to_sample, sample_attention
from headsurgeon.heads import HeadId
from headsurgeon.study.results import Cell, folder_of
from headsurgeon.study.spec import Study


def keep_attention(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    study: Study,
    texts: Mapping[str, Windows | Texts],
    cell: Cell,
    heads: Sequence[HeadId],
    folder: Path,
) -> None:
    """Writes `attention.json` into the cell's folder: of the text that it is trained on.

    Of an untrained model it is the first text that arms are trained on. Nothing is written where
    that text is no windows, or there are no heads.
    """
    windows = texts[cell.text or study.train_on[0]]
    if not isinstance(windows, Windows) or not heads:
        return
    sampled = heads_to_sample(heads, layout_of(model))
    sample_attention(model, tokenizer, windows, sampled).save(folder_of(folder, cell) / SAMPLES)
