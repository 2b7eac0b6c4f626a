"""What the demo works on: models and the windows of text, chosen before anything is measured."""

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from headsurgeon.data import Windows, windows
from headsurgeon.demo.journal import Journal
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.demo.training import training
from headsurgeon.models import load
from headsurgeon.training.schedule import windows_needed

TEST = "test"
OTHER = "other"


@dataclass(frozen=True)
class Material:
    """Models and text.

    Attributes:
        model: the model to operate on.
        tokenizer: its tokenizer.
        ceiling: the healthy twin, if there is one.
        train: windows the arms are trained on, the same for each.
        progress: windows of dev text on which they are evaluated while they train.
        dev: windows the diagnosis reads, by `TEST` (the corpus trained on) and, unless the illness
            is known, `OTHER` (a corpus no arm is trained on).
        cost: the first of them, on which single heads are ablated.
        test: held-out windows of both; every final loss comes from them.
        heads: the first of them, on which statistics of heads are measured.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    ceiling: PreTrainedModel | None
    train: Windows
    progress: Windows
    dev: dict[str, Windows]
    cost: dict[str, Windows]
    test: dict[str, Windows]
    heads: dict[str, Windows]


def gather(settings: DemoSettings, journal: Journal) -> Material:
    """Loads the models and cuts the text.

    Raises:
        ModelError, UnsupportedModel, NetworkError: as `load`.
        CorpusError: as `windows`.
    """
    with journal.stage(f"loading {settings.model}"):
        model, tokenizer = load(settings.model)
    ceiling = None
    if settings.ceiling is not None:
        with journal.stage(f"loading {settings.ceiling}, its healthy twin"):
            ceiling, _ = load(settings.ceiling)

    def cut(corpus: str, split: str, count: int | None) -> Windows:
        return windows(corpus, tokenizer, split, settings.length, count, settings.seed)

    with journal.stage(f"reading {settings.text} and {settings.other_text}"):
        wanted = training(settings, settings.surgery_rate)
        train = cut(settings.corpus, "train", windows_needed(wanted))
        corpora = {TEST: settings.corpus, OTHER: settings.other_corpus}
        dev = {
            name: cut(corpus, "dev", settings.dev_windows)
            for name, corpus in corpora.items()
            if name == TEST or not settings.planted
        }
        test = {
            name: cut(corpus, "test", settings.test_windows) for name, corpus in corpora.items()
        }
    return Material(
        model=model,
        tokenizer=tokenizer,
        ceiling=ceiling,
        train=train,
        progress=dev[TEST].take(wanted.dev_windows),
        dev=dev,
        cost={name: part.take(settings.cost_windows) for name, part in dev.items()},
        test=test,
        heads={name: part.take(settings.statistics_windows) for name, part in test.items()},
    )
