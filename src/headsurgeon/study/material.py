"""Models and windows of a study: the same for every cell that asks for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import Windows, windows
from headsurgeon.models import load
from headsurgeon.study.parts import Arm
from headsurgeon.study.spec import Study
from headsurgeon.training import TrainSettings
from headsurgeon.training.schedule import windows_needed


def load_model(
    study: Study, which: str, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The study's `subject` or its `twin`; raises as `headsurgeon.load`."""
    name = study.model if which == "subject" else str(study.twin)
    return load(name, dtype=study.dtype, device=device)


def scored_windows(study: Study, tokenizer: PreTrainedTokenizerBase) -> dict[str, Windows]:
    """Test windows of every text."""
    return {
        text.name: _cut(study, (text.name,), tokenizer, "test", study.windows.test)
        for text in study.texts
    }


def dev_windows(study: Study, name: str, tokenizer: PreTrainedTokenizerBase, count: int) -> Windows:
    """Dev windows of one text; a smaller count gives the first of a larger one."""
    return _cut(study, (name,), tokenizer, "dev", count)


def training_text(
    study: Study,
    arm: Arm,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainSettings,
) -> tuple[Windows, Windows]:
    """Train windows for the budget of an arm, and dev windows; the latter of `name` alone."""
    names = (name, *arm.also_trained_on)
    train = _cut(study, names, tokenizer, "train", windows_needed(settings))
    return train, dev_windows(study, name, tokenizer, settings.dev_windows)


def anchor_text(
    study: Study, arm: Arm, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings
) -> Windows | None:
    """Train windows of the text on which an arm is held to the untouched model, if it is."""
    if arm.anchor is None:
        return None
    return _cut(study, (arm.anchor,), tokenizer, "train", settings.anchor_windows)


def _cut(
    study: Study,
    names: tuple[str, ...],
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    count: int | None,
) -> Windows:
    corpora: list[str] = []
    weights: list[float] = []
    for name in names:
        text = study.text(name)
        parts = (text.corpus,) if isinstance(text.corpus, str) else text.corpus
        shares = text.weights or (1.0,) * len(parts)
        corpora += parts
        # texts that are mixed count alike, however many corpora each is made of
        weights += [share / sum(shares) for share in shares]
    return windows(
        corpora,
        tokenizer,
        split=split,
        length=study.windows.length,
        count=count,
        seed=study.windows.seed,
        first_token=study.windows.first_token,
        weights=weights,
    )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """While open, `count` threads make the sums on a CPU: with as many the sums are the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
