"""Texts that a training run reads besides its own: probes and an anchor, from the command line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headsurgeon.cli.loading import read_windows
from headsurgeon.errors import SettingsError
from headsurgeon.training import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from headsurgeon.data import Windows


def probe_windows(
    probes: Sequence[str], tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> dict[str, "Windows"]:
    """Windows of the dev split of every `NAME=SPEC`, as many as of the run's own dev text.

    `NAME@test=SPEC` has them of the test split, for a text that what is chosen is reported on.

    Raises:
        SettingsError: one that is not of that form, a name given twice, or given texts.
        CorpusError, NetworkError: as `headsurgeon.windows`.
    """
    windows: dict[str, Windows] = {}
    count = settings.dev_windows
    for probe in probes:
        named, equals, spec = probe.partition("=")
        name, at, split = named.partition("@")
        wrong = not (name and equals and spec) or (at and split != "test")
        if wrong or name in windows:
            raise SettingsError(
                "--probe: expected NAME=SPEC or NAME@test=SPEC, each name once, such as "
                f"prose=text:books/*.txt; got {probe[:100]!r}"
            )
        windows[name] = _windows(spec, tokenizer, settings, split or "dev", count, 0)
    return windows


def anchor_windows(
    corpus: str | None, tokenizer: "PreTrainedTokenizerBase", settings: TrainSettings
) -> "Windows | None":
    """Windows of the train split of the anchor text, if there is one.

    Raises:
        SettingsError: given texts.
        CorpusError, NetworkError: as `headsurgeon.windows`.
    """
    if corpus is None:
        return None
    count, seed = settings.anchor_windows, settings.windows_seed
    return _windows(corpus, tokenizer, settings, "train", count, seed)


def _windows(
    spec: str,
    tokenizer: "PreTrainedTokenizerBase",
    settings: TrainSettings,
    split: str,
    count: int,
    seed: int,
) -> "Windows":
    from headsurgeon.data import Windows

    windows = read_windows(
        spec,
        tokenizer,
        split=split,
        length=settings.length,
        count=count,
        seed=seed,
        first_token=settings.first_token,
        packing=settings.packing,
    )
    if not isinstance(windows, Windows):
        raise SettingsError(
            f"{spec[:100]}: given texts are not cut into windows, which probes and anchors are; "
            "name a corpus, such as text:FILE"
        )
    return windows
