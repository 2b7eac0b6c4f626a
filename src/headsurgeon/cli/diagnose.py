"""`headsurgeon diagnose`: which heads are sick, how sure that is, and where they are."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import busy, out, show_next
from headsurgeon.cli.loading import open_model, read_windows
from headsurgeon.cli.outputs import check_folder
from headsurgeon.own_files import check_own_files, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from jaxtyping import Float
    from transformers import PreTrainedModel

    from headsurgeon.data import Windows
    from headsurgeon.diagnosis import Diagnosis, FirstTokenTest, Thresholds

DIAGNOSIS = "diagnosis.json"
HEADS = "heads.csv"
LAYERS = "layers.csv"
FIRST_TOKEN_TEST = "first_token_test.json"
FILES = (DIAGNOSIS, HEADS, LAYERS, FIRST_TOKEN_TEST)


@dataclass(frozen=True, eq=False)
class Examined:
    """What is known of one model.

    Attributes:
        diagnosis: verdicts and what they rest on.
        dormancy: share of dormant MLP neurons.
        test: whether sick heads follow the position or the token, where that was asked for.
    """

    diagnosis: "Diagnosis"
    dormancy: "Float[np.ndarray, ' layer']"
    test: "FirstTokenTest | None"


def diagnose(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help=f"{options.MODELS}. Several are compared in one table and one figure.",
            show_default=False,
        ),
    ],
    corpus: options.Corpus,
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for diagnosis.json, heads.csv and layers.csv; for several models for "
            "comparison.json, maps.png and a folder with these files for each.",
            show_default=False,
        ),
    ],
    reading: options.Reading,
    loading: options.FrozenLoading,
    first_token_test: Annotated[
        bool,
        typer.Option(
            "--first-token-test",
            help="Also find out whether sick heads follow position 0 or the token that stands "
            "there; takes four times as long.",
        ),
    ] = False,
    sink: options.Sink = 0.5,
    dead: options.Dead = 0.95,
    low_entropy: options.LowEntropy = 0.5,
    split: options.Split = "dev",
    batch_size: options.BatchSize = None,
) -> None:
    """Finds the heads that collapsed onto the first token; changes nothing.

    Shows a map of layers × heads and writes every statistic of every head, with intervals over
    documents. Several models stand side by side, with the published figures of those that have any.
    """
    from headsurgeon.diagnosis import Thresholds
    from headsurgeon.folders import locked

    examine = partial(
        _examine,
        thresholds=Thresholds(sink=sink, dead=dead, low_entropy=low_entropy),
        corpus=corpus,
        split=split,
        reading=reading,
        loading=loading,
        first_token_test=first_token_test,
        batch_size=batch_size,
    )
    if len(models) > 1:
        _compare(models, output, examine, loading)
        return
    check_folder(output, DIAGNOSIS)
    with locked(output, DIAGNOSIS):
        check_own_files(output, FILES)
        examined = examine(models[0])
        names = _write(output, examined)
    _show(output, examined, names)


def _compare(
    models: "Sequence[str]",
    output: Path,
    examine: "Callable[[str], Examined]",
    loading: options.Loading,
) -> None:
    from headsurgeon.cli.compare import (
        COMPARISON,
        FIGURE,
        begin_comparison,
        check_models,
        folder_names,
        show_comparison,
        write_comparison,
    )
    from headsurgeon.folders import locked

    check_folder(output, COMPARISON)
    check_models(models, loading)
    places = [output / name for name in folder_names(models)]
    with locked(output, COMPARISON):
        check_own_files(output, (COMPARISON, FIGURE))
        for place in places:
            check_folder(place, DIAGNOSIS)
            check_own_files(place, FILES)
        # one model is held at a time
        examined = [examine(model) for model in models]
        diagnoses = [each.diagnosis for each in examined]
        begin_comparison(output)
        for place, each in zip(places, examined, strict=True):
            _write(place, each)
        # what is drawn and summed up comes last, so that a fault in it loses no measurement
        write_comparison(output, diagnoses)
    written = sorted([COMPARISON, FIGURE, *(place.name for place in places)])
    show_comparison(output, diagnoses, written)


def _examine(
    model: str,
    *,
    thresholds: "Thresholds",
    corpus: str,
    split: str,
    reading: options.Reading,
    loading: options.FrozenLoading,
    first_token_test: bool,
    batch_size: int | None,
) -> Examined:
    from headsurgeon.arch import layout_of
    from headsurgeon.data import Texts
    from headsurgeon.diagnosis import diagnose as give_verdicts
    from headsurgeon.diagnosis import mlp_dormancy
    from headsurgeon.errors import SettingsError
    from headsurgeon.measurement import measure

    loaded, tokenizer = open_model(model, loading)
    windows = read_windows(corpus, tokenizer, split=split, **asdict(reading))
    if isinstance(windows, Texts) and first_token_test:
        raise SettingsError("--first-token-test needs windows of one length, not given texts")
    with busy(f"measuring {len(windows)} windows of {windows.length} tokens"):
        stats = measure(
            loaded,
            windows,
            batch_size=batch_size,
            attention=loading.attention,  # type: ignore[arg-type]
        )
        diagnosis = give_verdicts(stats, thresholds, seed=reading.seed)
        dormancy = mlp_dormancy(loaded, layout_of(loaded))
    test = (
        _position_or_token(loaded, windows, batch_size, loading.attention)
        if first_token_test and not isinstance(windows, Texts)
        else None
    )
    return Examined(diagnosis, dormancy, test)


def _position_or_token(
    model: "PreTrainedModel", windows: "Windows", batch_size: int | None, attention: Any
) -> "FirstTokenTest":
    from headsurgeon.diagnosis import common_tokens
    from headsurgeon.diagnosis import first_token_test as run_test
    from headsurgeon.measurement import measure

    with busy("measuring with other first tokens, and with none"):
        return run_test(
            partial(measure, model, batch_size=batch_size, attention=attention),
            windows.tokens,
            common_tokens(windows.tokens),
        )


def _write(output: Path, examined: Examined) -> list[str]:
    """Writes what was found, all of it or nothing, and returns the names of the files."""
    import pandas

    from headsurgeon.files import header, write_json, write_text

    diagnosis, dormancy, test = examined.diagnosis, examined.dormancy, examined.test
    layers = {
        "layer": range(len(dormancy)),
        # empty, not 0, where there is no head
        "sick": pandas.Series(diagnosis.per_layer).where(diagnosis.stats.attends).astype("Int64"),
        "mlp_dormancy": dormancy,
    }
    with writing(output, DIAGNOSIS) as staged:
        diagnosis.save(staged / DIAGNOSIS)
        write_text(staged / HEADS, diagnosis.to_frame().to_csv(index=False))
        write_text(staged / LAYERS, pandas.DataFrame(layers).to_csv(index=False))
        if test is not None:
            content = {**header("first-token-test"), "heads": test.to_dict()}
            write_json(staged / FIRST_TOKEN_TEST, content)
        return sorted(path.name for path in staged.iterdir())


def _show(output: Path, examined: Examined, names: "Sequence[str]") -> None:
    from headsurgeon.cli.summary import show_diagnosis

    diagnosis = examined.diagnosis
    show_diagnosis(diagnosis, examined.dormancy, examined.test)
    console = out()
    console.print(f"\nwritten to {output}: {', '.join(names)}", soft_wrap=True)
    if diagnosis.sick:
        show_next("plan", output / DIAGNOSIS, "--rule", "sick", "-o", "plan.yaml")
