"""The windows that a run trains and is evaluated on, cut out of a corpus as its settings say."""

from collections.abc import Sequence
from functools import partial

from transformers import PreTrainedTokenizerBase

from headsurgeon.arguments import checked
from headsurgeon.data import Windows, windows
from headsurgeon.training.schedule import windows_needed
from headsurgeon.training.settings import TrainSettings


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
    cut = partial(
        windows,
        corpus,
        tokenizer,
        length=settings.length,
        first_token=settings.first_token,
        weights=weights,
        packing=settings.packing,
    )
    return (
        cut(split="train", count=windows_needed(settings), seed=settings.windows_seed),
        cut(split="dev", count=settings.dev_windows),
    )
