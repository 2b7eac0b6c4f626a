"""The windows that a run trains and is evaluated on, cut out of a corpus as its settings say."""

from collections.abc import Callable, Sequence
from functools import partial

from transformers import PreTrainedTokenizerBase

from headsurgeon.arguments import checked
from headsurgeon.data import Windows, windows
from headsurgeon.training.schedule import budget_left, windows_needed
from headsurgeon.training.settings import CALIBRATION, TrainSettings


@checked
def training_windows(
    corpus: str | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainSettings,
    *,
    weights: Sequence[float] = (),
) -> tuple[Windows, Windows]:
    """Windows of the train split for the whole budget, and windows of the dev split.

    Where the corpus has fewer windows than the budget, the run repeats them. Dev windows are the
    same whatever the seeds, so that runs can be compared.

    Args:
        corpus: a SPEC, see `headsurgeon.data.spec`, or several, which are mixed.
        tokenizer: the model's tokenizer.
        settings: length, first token, packing, budget and `windows_seed` count.
        weights: as `headsurgeon.windows`; both parts are mixed alike.

    Raises:
        CorpusError, SettingsError, NetworkError: as `headsurgeon.windows`.
    """
    cut = _cutting(corpus, tokenizer, settings, weights)
    return (
        cut(split="train", count=windows_needed(settings), seed=settings.windows_seed),
        cut(split="dev", count=settings.dev_windows),
    )


@checked
def calibration_windows(
    corpus: str | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainSettings,
    *,
    count: int = CALIBRATION,
    weights: Sequence[float] = (),
) -> tuple[Windows, TrainSettings]:
    """What a start looks at, the first windows of the training text, and what is left to train on.

    Not dev text: values that are fitted to some windows predict these better than others, and the
    step that is kept is chosen on dev text.

    Args:
        corpus, tokenizer, settings, weights: as `training_windows`.
        count: windows wanted; fewer are returned if the corpus has fewer.

    Returns:
        The windows, for `operate(calibration=…)`, and the settings for `training_windows` and
        `train`: without the tokens of these windows where `max_tokens` is the budget, or part of
        it, and as they were where `epochs` alone is.

    Raises:
        CorpusError, SettingsError, NetworkError: as `headsurgeon.windows`; a budget that the start
            would read whole.
    """
    cut = _cutting(corpus, tokenizer, settings, weights)
    seen = cut(split="train", count=count, seed=settings.windows_seed)
    # a corpus may have fewer than were wanted
    return seen, budget_left(settings, seen.tokens.numel())


def _cutting(
    corpus: str | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainSettings,
    weights: Sequence[float],
) -> Callable[..., Windows]:
    """`headsurgeon.windows` as the settings say, but for split, count and seed."""
    return partial(
        windows,
        corpus,
        tokenizer,
        length=settings.length,
        first_token=settings.first_token,
        weights=weights,
        packing=settings.packing,
    )
