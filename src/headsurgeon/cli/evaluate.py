"""`headsurgeon evaluate`: how well a model predicts text, and what an operation brought."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headsurgeon.cli import options
from headsurgeon.cli.ablation_evaluation import evaluate_ablation
from headsurgeon.cli.console import bounds, facts, heading, nats, out, table
from headsurgeon.cli.given_models import check_models
from headsurgeon.cli.like_lm_eval import check_like, evaluate_like
from headsurgeon.cli.loading import open_model, read_windows
from headsurgeon.cli.outputs import check_file, check_replaceable
from headsurgeon.cli.patch_evaluation import evaluate_patches
from headsurgeon.cli.progress import busy
from headsurgeon.errors import HeadsurgeonError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.data import Texts, Windows
    from headsurgeon.scores import Estimate, Evaluation

Report = dict[str, Any]
Shows = list[Callable[[], None]]


def evaluate(
    model: options.Model,
    corpus: options.Corpus,
    reading: options.Reading,
    loading: options.FrozenLoading,
    patches: Annotated[
        list[Path] | None,
        typer.Option(
            "--patch",
            metavar="FILE",
            help="Compare the model with and without this patch: loss, drift, recovery; several "
            "are put on one after the other, in this order. Or weights.safetensors of a whole "
            "model.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Compare with another model, token by token.", show_default=False
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Say what ablating the heads of this plan costs.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write every figure to a JSON file.", show_default=False
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="lm-eval",
            help="Score as lm-evaluation-harness does: whole documents in rolling windows of "
            "--length, --count of them, first token included; --split all takes them all.",
            rich_help_panel=options.TEXT,
            show_default=False,
        ),
    ] = None,
    split: options.Split = "test",
    batch_size: options.BatchSize = None,
) -> None:
    """Measures loss and perplexity with intervals; with a patch, whether it did anything.

    Heads count as recovered only if ablating them costs more than it did before: heads that were
    reinitialised and never trained count as 0.
    """
    from headsurgeon.evaluation import evaluate as score
    from headsurgeon.files import header, write_json
    from headsurgeon.models.weights import precision
    from headsurgeon.operation import check_trained
    from headsurgeon.operation.operating import check_operable
    from headsurgeon.planning import Plan

    if output is not None:
        check_file(output, "evaluation.json")
        check_replaceable(output, "evaluation")
    check_trained(patches or ())
    if like is not None:
        check_like(like, reading, plan)
    if baseline is not None:
        check_models([baseline], loading)
    if like is not None:
        evaluate_like(
            *(model, patches or (), baseline, corpus, split, reading, loading, batch_size, output)
        )
        return
    planned = None if plan is None else Plan.load(plan)
    loaded, tokenizer = open_model(model, loading)
    if patches:
        check_operable(loaded)

    def read(its: "PreTrainedTokenizerBase") -> "Windows | Texts":
        return read_windows(corpus, its, split=split, **asdict(reading))

    windows = read(tokenizer)

    def scored(
        what: str, subject: "PreTrainedModel", on: "Windows | Texts" = windows
    ) -> "Evaluation":
        with busy(f"evaluating {what}", len(on)) as on_windows:
            return score(
                subject,
                on,
                batch_size=batch_size,
                attention=loading.attention,  # type: ignore[arg-type]
                on_windows=on_windows,
            )

    results: dict[str, Evaluation] = {model: scored(model, loaded)}
    report: Report = {**header("evaluation"), "seed": reading.seed, "dtype": precision(loaded)}
    # what was computed is saved before any of it is printed
    shows: Shows = []
    if planned is not None:
        report["ablation"] = evaluate_ablation(
            loaded, planned, windows, results[model], batch_size, loading.attention, shows
        )
    if patches:
        with_them, said = evaluate_patches(
            loaded, patches, windows, results[model], batch_size, loading.attention, shows
        )
        report |= said
        label = f"with {patches[0].name}" if len(patches) == 1 else f"with {len(patches)} patches"
        results[_unused(label, "patch", results)] = with_them
    failure: HeadsurgeonError | None = None
    apart: str | None = None
    if baseline is not None:
        label = _unused(baseline, "baseline", results)
        # one model is held at a time
        del loaded
        try:
            other, others_tokenizer = open_model(baseline, loading)
            if others_tokenizer.get_vocab() != tokenizer.get_vocab():
                apart = label
            its_windows = read(others_tokenizer) if apart else windows
            results[label] = scored(baseline, other, its_windows)
        except HeadsurgeonError as error:
            # what is known of the model stays
            failure = error
    changes, not_compared = _differences(results, apart)
    report["evaluations"] = {name: result.model_dump() for name, result in results.items()}
    report["differences"] = {name: change.model_dump() for name, change in changes.items()}
    if not_compared:
        report["not_compared"] = not_compared
    if output is not None:
        write_json(output, report)
    shows.append(partial(_show_losses, results, changes, not_compared))
    for show in shows:
        show()
    if output is not None:
        out().print(f"\nwritten to {output}", soft_wrap=True)
    if failure is not None:
        raise failure


def _unused(name: str, role: str, taken: "Mapping[str, Evaluation]") -> str:
    """A label that no result has yet, so that a model compared with itself keeps both figures."""
    return f"{name} ({role})" if name in taken else name


def _differences(
    results: "Mapping[str, Evaluation]", apart: str | None
) -> "tuple[dict[str, Estimate], dict[str, str]]":
    """How every model differs from those before it, and why `apart` is compared with none.

    Windows of another vocabulary may be as many, of the same documents: they pair by accident.
    """
    from headsurgeon.scores import difference

    changes, not_compared = {}, {}
    for other, name in combinations(results, 2):
        if apart in (other, name):
            not_compared[f"{name} − {other}"] = (
                "another vocabulary, so nats per token are about other tokens "
                f"({results[name].tokens} and {results[other].tokens} predicted here)"
            )
        else:
            changes[f"{name} − {other}"] = difference(results[name], results[other])
    return changes, not_compared


def _show_losses(
    results: "Mapping[str, Evaluation]",
    changes: "Mapping[str, Estimate]",
    not_compared: "Mapping[str, str]",
) -> None:
    """Prints losses and their differences."""
    first = next(iter(results.values()))
    rows = []
    for name, result in results.items():
        interval = result.interval()
        spread = bounds(interval.low, interval.high)
        rows.append(
            [name, f"{result.nll:.4f}", spread, f"{result.perplexity:.3f}", result.attention]
        )
    console = out()
    title = (
        f"{first.corpus}, split {first.split}: {first.tokens} predicted tokens of "
        f"{len(first.documents)} documents, window {first.length}, stride {first.stride}"
    )
    columns = ["model", "nats per token", "95 % interval", "perplexity", "attention"]
    if first.unequal:
        columns.append("perplexity weighted by T (the paper's)")
        for row, result in zip(rows, results.values(), strict=True):
            row.append(f"{result.perplexity_weighted_by_length:.3f}")
    console.print()
    console.print(heading(title))
    console.print(table(columns, rows))
    if changes:
        console.print()
        console.print(heading("difference, paired over documents; below 0 is better"))
        console.print(facts({name: nats(change) for name, change in changes.items()}))
    if not_compared:
        console.print()
        console.print(heading("no difference can be taken"))
        console.print(facts(not_compared))
