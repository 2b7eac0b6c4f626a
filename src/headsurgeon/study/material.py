"""Models and windows of a study: the same for every cell that asks for them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import Texts, Windows, given_file, texts, windows
from headsurgeon.data.packing_kinds import Packing
from headsurgeon.errors import StudyError
from headsurgeon.models import load
from headsurgeon.study.parts import Arm, Text
from headsurgeon.study.results import Prepared
from headsurgeon.study.spec import Study
from headsurgeon.training import TrainSettings
from headsurgeon.training.schedule import windows_needed

# of each probe text, at every evaluation of a run
PROBE_WINDOWS = 8


def load_model(
    study: Study, which: str, device: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The study's `subject` or its `twin`; raises as `headsurgeon.load`."""
    name = study.model if which == "subject" else str(study.twin)
    tokenizer = study.tokenizer if which == "subject" else None
    return load(name, dtype=study.dtype, device=device, tokenizer=tokenizer)


def scored_windows(study: Study, tokenizer: PreTrainedTokenizerBase) -> dict[str, Windows | Texts]:
    """Test windows of every text; of given texts all of them, whole."""
    return {
        text.name: given_texts(study, text, tokenizer)
        if text.given
        else _cut(study, (text,), tokenizer, "test", study.windows.test)
        for text in study.texts
    }


def checked_windows(
    study: Study, prepared: Prepared, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Windows | Texts]:
    """The test windows, which have to be those that the study was prepared with.

    Raises:
        StudyError: they are others.
    """
    scored = scored_windows(study, tokenizer)
    changed = [name for name, part in scored.items() if hash_of(part) != prepared.windows.get(name)]
    if changed:
        raise StudyError(
            f"the test windows of {', '.join(changed)} are not those that the study was prepared "
            "with: the text, or the package it is from, has changed; begin in another folder"
        )
    return scored


def hash_of(windows: Windows | Texts) -> str:
    """SHA-256 of the tokens of windows, or of texts one after the other."""
    digest = hashlib.sha256()
    for tokens in windows.tokens:
        digest.update(tokens.numpy().tobytes())
    return digest.hexdigest()


def diagnosed_windows(
    study: Study, name: str, tokenizer: PreTrainedTokenizerBase, count: int
) -> Windows | Texts:
    """What is measured of a text before anything is changed: dev windows, or given texts whole.

    Given texts have no splits: what is decided on them has been seen by whoever reports them.
    """
    if study.text(name).given:
        return given_texts(study, study.text(name), tokenizer)
    return dev_windows(study, name, tokenizer, count)


def first_of(part: Windows | Texts, count: int) -> Windows | Texts:
    """The first windows; given texts are few, and all of them count."""
    return part if isinstance(part, Texts) else part.take(count)


def dev_windows(study: Study, name: str, tokenizer: PreTrainedTokenizerBase, count: int) -> Windows:
    """Dev windows of one text; a smaller count gives the first of a larger one."""
    return _cut(study, (study.text(name),), tokenizer, "dev", count)


def given_texts(study: Study, text: Text, tokenizer: PreTrainedTokenizerBase) -> Texts:
    """Texts that are given one by one, each of them whole.

    Raises:
        StudyError: the text is a corpus.
        CorpusError: as `headsurgeon.texts`.
    """
    file = given_file(text.corpus) if isinstance(text.corpus, str) else None
    if file is None:
        raise StudyError(f"text {text.name}: expected one SPEC of given texts, got {text.corpus}")
    first_token = study.windows.first_token
    return texts(file, tokenizer, first_token=first_token, name=str(text.corpus))


def probe_texts(study: Study, tokenizer: PreTrainedTokenizerBase) -> dict[str, Windows | Texts]:
    """The probes by name: dev windows of a corpus, or given texts as they are."""
    probes = [study.text(each) if isinstance(each, str) else each for each in study.probes]
    return {
        text.name: given_texts(study, text, tokenizer)
        if text.given
        else _cut(study, (text,), tokenizer, "dev", PROBE_WINDOWS)
        for text in probes
    }


def training_text(
    study: Study,
    arm: Arm,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainSettings,
) -> tuple[Windows, Windows]:
    """Train windows for the budget of an arm, and dev windows; the latter of `name` alone.

    Where a start or an anchor takes from the budget, not all of them are read: those that are have
    the same order as in other arms.
    """
    mixed = tuple(map(study.text, (name, *arm.also_trained_on)))
    train = _cut(
        study,
        mixed,
        tokenizer,
        "train",
        windows_needed(study.whole_settings(arm)),
        settings.packing,
    )
    return train, dev_windows(study, name, tokenizer, settings.dev_windows)


def calibration_text(
    study: Study, arm: Arm, name: str, tokenizer: PreTrainedTokenizerBase
) -> Windows:
    """What an arm's start looks at: the first of the windows that it is trained on.

    Not dev text: values that are fitted to some windows predict these ones better than others, and
    steps and rates are chosen on dev text.
    """
    mixed = tuple(map(study.text, (name, *arm.also_trained_on)))
    packing = study.whole_settings(arm).packing
    return _cut(study, mixed, tokenizer, "train", arm.calibration, packing)


def anchor_text(
    study: Study, arm: Arm, tokenizer: PreTrainedTokenizerBase, settings: TrainSettings
) -> Windows | None:
    """Train windows of the text on which an arm is held to the untouched model, if it is."""
    if arm.anchor is None:
        return None
    return _cut(study, (study.text(arm.anchor),), tokenizer, "train", settings.anchor_windows)


def _cut(
    study: Study,
    mixed: tuple[Text, ...],
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    count: int | None,
    packing: Packing = "documents",
) -> Windows:
    corpora: list[str] = []
    weights: list[float] = []
    for text in mixed:
        parts = text.corpora
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
        packing=packing,
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
