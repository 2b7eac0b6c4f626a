"""`headsurgeon diagnose`: which heads are sick, how sure that is, and where they are."""

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import out, show_next
from headsurgeon.cli.examining import DIAGNOSIS, FILES, Examined, examine, write_examined
from headsurgeon.cli.given_models import check_models, folder_names
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.progress import one_by_one
from headsurgeon.extras import require
from headsurgeon.own_files import check_own_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


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
            "comparison.json, maps.png and a folder with these files for each; for a series for "
            "series.jsonl, series.png and such folders.",
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
    series: Annotated[
        bool,
        typer.Option(
            "--series",
            help="The models are checkpoints of one training run: curves instead of a comparison. "
            "One folder stands for the checkpoint-N in it.",
        ),
    ] = False,
    revisions: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="A series of these revisions of one model on the Hub.",
            show_default=False,
        ),
    ] = None,
    sink: options.Sink = 0.5,
    dead: options.Dead = 0.95,
    low_entropy: options.LowEntropy = 0.5,
    split: options.Split = "dev",
    batch_size: options.BatchSize = None,
) -> None:
    """Finds the heads that collapsed onto the first token; changes nothing.

    Shows a map of layers × heads and writes every statistic of every head, with intervals over
    documents. Several models stand side by side, with the published figures of those that have any;
    checkpoints of one run (--series) give the curves of their heads.
    """
    from headsurgeon.diagnosis import Thresholds
    from headsurgeon.folders import locked

    examined_as = partial(
        examine,
        thresholds=Thresholds(sink=sink, dead=dead, low_entropy=low_entropy),
        corpus=corpus,
        split=split,
        reading=reading,
        loading=loading,
        first_token_test=first_token_test,
        batch_size=batch_size,
    )
    if series or revisions or len(models) > 1:
        require("matplotlib", "the figure of several models")
    if series or revisions:
        _follow(models, revisions, output, examined_as, loading)
        return
    if len(models) > 1:
        _compare(models, output, partial(examined_as, score=True), loading)
        return
    check_folder(output, DIAGNOSIS)
    with locked(output, DIAGNOSIS):
        check_own_files(output, FILES)
        examined = examined_as(models[0])
        names = write_examined(output, examined)
    _show(output, examined, names, loading)


def _compare(
    models: "Sequence[str]",
    output: Path,
    examine: "Callable[..., Examined]",
    loading: options.Loading,
) -> None:
    from headsurgeon.cli import compare

    with _many(models, output, (compare.COMPARISON, compare.FIGURE)) as write_each:
        check_models(models, loading)
        # one model is held at a time
        examined = [examine(model, which=which) for model, which in one_by_one(models, "model")]
        compare.begin_comparison(output)
        folders = write_each(examined)
        # what is drawn and summed up comes last, so that a fault in it loses no measurement
        compare.write_comparison(output, examined)
    written = sorted([compare.COMPARISON, compare.FIGURE, *folders])
    compare.show_comparison(output, examined, written)


def _follow(
    models: "Sequence[str]",
    revisions: str | None,
    output: Path,
    examine: "Callable[..., Examined]",
    loading: options.Loading,
) -> None:
    from headsurgeon.cli import series
    from headsurgeon.models.checkpoints import checkpoints_of

    named = [name.strip() for name in revisions.split(",")] if revisions else []
    checkpoints = checkpoints_of(models, named)
    specs = [checkpoint.spec for checkpoint in checkpoints]
    labels = [checkpoint.label for checkpoint in checkpoints]
    with _many(labels, output, (series.SERIES, series.FIGURE)) as write_each:
        check_models(specs, loading)
        examined = [examine(spec, which=which) for spec, which in one_by_one(specs, "checkpoint")]
        found = series.series_of_run(examined, checkpoints)
        series.begin_series(output, found)
        folders = write_each(examined)
        series.write_series(output, found, specs)
    written = [series.SERIES, series.FIGURE, *folders]
    series.show_series(output, found, specs, written)


@contextmanager
def _many(
    models: "Sequence[str]", output: Path, own: tuple[str, str]
) -> "Iterator[Callable[[Sequence[Examined]], list[str]]]":
    """Holds a folder for several models; yields what writes a folder below it for each.

    `own` are the files beside these folders; the first says whose folder it is.
    """
    from headsurgeon.folders import locked

    check_folder(output, own[0])
    places = [output / name for name in folder_names(models)]

    def write_each(examined: "Sequence[Examined]") -> list[str]:
        for place, each in zip(places, examined, strict=True):
            write_examined(place, each)
        return [place.name for place in places]

    with locked(output, own[0]):
        check_own_files(output, own)
        for place in places:
            check_folder(place, DIAGNOSIS)
            check_own_files(place, FILES)
        yield write_each


def _show(
    output: Path, examined: Examined, names: "Sequence[str]", loading: options.Loading
) -> None:
    from headsurgeon.cli.summary import show_diagnosis

    diagnosis = examined.diagnosis
    show_diagnosis(diagnosis, examined.dormancy, examined.test)
    console = out()
    console.print(f"\nwritten to {output}: {', '.join(names)}", soft_wrap=True)
    if diagnosis.sick:
        rule = ("--rule", "sick", *loading.again)
        show_next("plan", output / DIAGNOSIS, *rule, "-o", "plan.yaml")
