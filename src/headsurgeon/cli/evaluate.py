"""`headsurgeon evaluate`: how well a model predicts text, and what an operation brought."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import bounds, busy, facts, first_few, heading, nats, out, table
from headsurgeon.cli.loading import open_model, read_windows
from headsurgeon.cli.outputs import check_file, check_replaceable
from headsurgeon.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.data import Texts, Windows
    from headsurgeon.evaluation import Ablation, Drift, Recovery
    from headsurgeon.operation import Patient
    from headsurgeon.planning import Plan
    from headsurgeon.scores import Estimate, Evaluation

Report = dict[str, Any]
Shows = list[Callable[[], None]]
_SHOWN = 20


def evaluate(
    model: options.Model,
    corpus: options.Corpus,
    reading: options.Reading,
    loading: options.FrozenLoading,
    patch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare the model with and without this patch: loss, drift, recovery.",
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
    from headsurgeon.operation import read_patch
    from headsurgeon.operation.operating import check_operable
    from headsurgeon.planning import Plan

    if output is not None:
        check_file(output, "evaluation.json")
        check_replaceable(output, "evaluation")
    if patch is not None:
        read_patch(patch)
    planned = None if plan is None else Plan.load(plan)
    loaded, tokenizer = open_model(model, loading)
    if patch is not None:
        check_operable(loaded)
    windows = read_windows(corpus, tokenizer, split=split, **asdict(reading))

    def scored(what: str, subject: "PreTrainedModel") -> "Evaluation":
        with busy(f"evaluating {what}"):
            return score(
                subject,
                windows,
                batch_size=batch_size,
                attention=loading.attention,  # type: ignore[arg-type]
            )

    results: dict[str, Evaluation] = {model: scored(model, loaded)}
    report: Report = {**header("evaluation"), "seed": reading.seed, "dtype": precision(loaded)}
    # what was computed is saved before any of it is printed
    shows: Shows = []
    if planned is not None:
        report["ablation"] = _ablated(
            loaded, planned, windows, batch_size, loading.attention, shows
        )
    if patch is not None:
        report |= _patched(loaded, patch, windows, results, batch_size, loading.attention, shows)
    if baseline is not None:
        label = _unused(baseline, "baseline", results)
        results[label] = _other(baseline, tokenizer, loading, scored)
    changes = _differences(results)
    report["evaluations"] = {name: result.model_dump() for name, result in results.items()}
    report["differences"] = {name: change.model_dump() for name, change in changes.items()}
    if output is not None:
        write_json(output, report)
    shows.append(partial(_show_losses, results, changes))
    for show in shows:
        show()
    if output is not None:
        out().print(f"\nwritten to {output}", soft_wrap=True)


def _unused(name: str, role: str, taken: "Mapping[str, Evaluation]") -> str:
    """A label that no result has yet, so that a model compared with itself keeps both figures."""
    return f"{name} ({role})" if name in taken else name


def _differences(results: "Mapping[str, Evaluation]") -> "dict[str, Estimate]":
    """How every model differs from those before it."""
    from headsurgeon.scores import difference

    return {
        f"{name} − {other}": difference(results[name], results[other])
        for other, name in combinations(results, 2)
    }


def _show_losses(results: "Mapping[str, Evaluation]", changes: "Mapping[str, Estimate]") -> None:
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


def _ablated(
    model: "PreTrainedModel",
    plan: "Plan",
    windows: "Windows | Texts",
    batch_size: int | None,
    attention: Any,
    shows: Shows,
) -> Report:
    """What ablating the heads of a plan costs: each alone, and all together."""
    from headsurgeon.evaluation import ablate

    with busy(f"ablating {len(plan.operated)} heads, each alone and together"):
        ablation = ablate(
            model,
            plan,
            windows,
            mode=plan.ablation_mode,
            batch_size=batch_size,
            attention=attention,
        )
    shows.append(partial(_show_ablation, ablation))
    return ablation.model_dump(exclude={"ablated"})


def _show_ablation(ablation: "Ablation") -> None:
    ordered = sorted(ablation.singles.items(), key=lambda item: -item[1].value)
    rows = [[str(head), nats(cost)] for head, cost in ordered[:_SHOWN]]
    if len(ordered) > _SHOWN:
        rows.append([f"… {len(ordered) - _SHOWN} more", "less"])
    rows.append([f"all {len(ordered)}", nats(ablation.joint)])
    console = out()
    console.print(heading(f"what {ablation.mode} ablation of a head costs; above 0: it does work"))
    console.print(table(["head", "cost per token"], rows))


def _patched(
    model: "PreTrainedModel",
    patch: Path,
    windows: "Windows | Texts",
    results: "dict[str, Evaluation]",
    batch_size: int | None,
    attention: Any,
    shows: Shows,
) -> Report:
    """Before and after: drift, who fell sick, the cost of ablating, and the recovery rule."""
    from headsurgeon.evaluation import (
        NULL_SEEDS,
        drift,
        empirical_null,
        measure_and_ablate,
        recovery_from,
    )
    from headsurgeon.operation import apply_patch

    patient = apply_patch(model, patch)
    heads = patient.plan.operated
    examine = partial(
        measure_and_ablate, model, heads, windows, batch_size=batch_size, attention=attention
    )
    patient.revert()
    with busy("measuring the model without the patch"):
        # its loss is known already
        before = examine(score=next(iter(results.values())))
    with busy("comparing with the same heads reinitialised and not trained"):
        null = empirical_null(patient, windows, NULL_SEEDS, attention=attention)
    patient.merge()
    with busy("measuring the model with the patch"):
        after = examine()
    limits = patient.plan.limits
    found = recovery_from([before], [after], [null], heads, sick_mass=limits.sink)
    changed = drift(before.stats, after.stats, patient.plan)
    results[_unused(f"with {patch.name}", "patch", results)] = after.ablation.baseline
    shows.append(partial(_show_recovery, patient, found))
    shows.append(partial(_show_drift, changed))
    return {
        "patch": str(patch),
        # the two ablations stand beside it
        "recovery": found.model_dump(exclude={"stock", "revived"}),
        "drift": changed.model_dump(),
        "ablation_before": found.stock[0].model_dump(exclude={"ablated"}),
        "ablation_after": found.revived[0].model_dump(exclude={"ablated"}),
    }


def _show_recovery(patient: "Patient", found: "Recovery") -> None:
    total = len(found.heads)
    before, now = found.stock[0].joint, found.revived[0].joint
    lines = {
        "recovered": f"{len(found.recovered)} of {total} heads: {_because(found)}",
        "no longer sick": f"{found.left_sick.sum()} of {total} (an untrained head is not sick "
        f"either: mean mass {found.null_mass[0]:.3f})",
        "unlike untrained": f"{found.unlike_null.sum()} of {total}",
        "ablating them": f"cost {nats(before)} before, {nats(now)} now",
        "more than before": nats(found.function[0]),
    }
    if patient.frozen_key_values:
        lines["frozen K and V"] = first_few(patient.frozen_key_values)
    console = out()
    console.print()
    console.print(heading(f"{total} heads operated on"))
    console.print(facts(lines))


def _because(found: "Recovery") -> str:
    if found.recovered:
        return "not sick, unlike an untrained head, and the set does more work than before"
    low = found.function[0].low
    if low != low:
        return "one document gives no interval, so nothing can be said; read more documents"
    if low <= 0:
        return "ablating the set does not clearly cost more than it did before"
    return "none is both healthy and unlike an untrained head"


def _show_drift(changed: "Drift") -> None:
    watched, outside = changed.zones["watched"], changed.zones["outside"]
    groups = ("operated", "watched", "outside") if watched["heads"] else ("operated", "untouched")
    lines = {
        "drifted": f"{len(changed.drifted)} of the {changed.could_drift} untouched heads "
        f"that can change moved their mass by more than {changed.threshold:g}; "
        f"{changed.structural_zeros.sum()} more cannot change",
    }
    for group in groups:
        steps = changed.transitions[group].items()
        lines[group] = ", ".join(f"{count} {before} → {after}" for (before, after), count in steps)
    if watched["heads"]:
        lines["of these"] = (
            f"{watched['drifted']} of {watched['could_drift']} watched heads, "
            f"{outside['drifted']} of {outside['could_drift']} outside"
        )
    if changed.drifted:
        lines["which"] = first_few(changed.drifted)
    console = out()
    console.print()
    console.print(heading("the other heads"))
    console.print(facts(lines))


def _other(
    baseline: str,
    tokenizer: "PreTrainedTokenizerBase",
    loading: options.FrozenLoading,
    scored: "Callable[[str, PreTrainedModel], Evaluation]",
) -> "Evaluation":
    other, others_tokenizer = open_model(baseline, loading)
    if others_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"{baseline} has another vocabulary, so its loss per token is about other tokens; "
            "compare with a model of the same tokenizer"
        )
    return scored(baseline, other)
