"""Several models side by side: what `diagnose` shows and writes when it is given more than one."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsurgeon.cli.compare_table import comparison_table, parameters
from headsurgeon.cli.console import facts, heading, out, percent
from headsurgeon.cli.examining import Examined
from headsurgeon.cli.planted import planted_remark
from headsurgeon.errors import ModelError
from headsurgeon.own_files import writing
from headsurgeon.paper import SOURCE, ReportedDiagnosis, reported_diagnosis
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from headsurgeon.scores import Evaluation

COMPARISON = "comparison.json"
FIGURE = "maps.png"


def reported_of(model: str) -> ReportedDiagnosis | None:
    """What the paper reports of a model, at whatever revision, since it pins none."""
    from headsurgeon.models.address import Address

    # what was loaded may be a folder of any name
    with suppress(ModelError):
        address = Address.parse(model)
        if address.subfolder is None:
            return reported_diagnosis(address.repository)
    return None


def summary(examined: Examined) -> dict[str, Any]:
    """One model's line of the comparison, as plain data; shares are fractions, losses nats."""
    from dataclasses import asdict

    import numpy as np

    from headsurgeon.diagnosis.band import code_band
    from headsurgeon.models.planted import is_planted

    diagnosis, loss = examined.diagnosis, examined.loss
    stats = diagnosis.stats
    layers, heads = stats.shape
    band = diagnosis.sick_band
    published = reported_of(stats.provenance.model)
    return {
        "model": stats.provenance.model,
        "parameters": examined.parameters,
        "layers": layers,
        "heads_per_layer": heads,
        "layers_without_attention": np.flatnonzero(~stats.attends).tolist(),
        "heads": diagnosis.heads,
        "counts": diagnosis.counts,
        "sick": len(diagnosis.sick),
        "sick_share": len(diagnosis.sick) / diagnosis.heads,
        "band": None if band is None else {**asdict(band), "name": str(band)},
        "band_by_the_papers_code": code_band(diagnosis.is_sick),
        "layers_affected_per_head": [int(count) for count in diagnosis.per_index],
        "sick_heads_per_layer": [
            int(count) if attends else None
            for count, attends in zip(diagnosis.per_layer, stats.attends, strict=True)
        ],
        "held_out": None if loss is None else _held_out(loss),
        "mlp_dormancy": [None if share != share else share for share in examined.dormancy.tolist()],
        "borderline": int(diagnosis.borderline.sum()),
        "null_mass": [float(np.nanmin(stats.null_mass)), float(np.nanmax(stats.null_mass))],
        "mass_slope_correlation": diagnosis.mass_slope_correlation,
        "planted": is_planted(stats.provenance.model),
        "provenance": stats.provenance.model_dump(),
        "published": None if published is None else {**asdict(published), "source": SOURCE},
    }


def _held_out(loss: "Evaluation") -> dict[str, Any]:
    interval = loss.interval()
    return {
        "loss": interval.value,
        "low": interval.low,
        "high": interval.high,
        "perplexity": loss.perplexity,
        "tokens": loss.tokens,
        "documents": len(loss.documents),
    }


def comparison_figure(examined: Sequence[Examined]) -> "Figure":
    """One head map per model, above it how many heads are sick and where, and what is reported."""
    from headsurgeon.report.comparison import model_maps
    from headsurgeon.report.data import HeadView

    views = [
        HeadView.of(
            _title(each),
            each.diagnosis.stats,
            each.diagnosis.verdicts,
            each.diagnosis.borderline,
            each.diagnosis.thresholds,
        )
        for each in examined
    ]
    names = _names(examined)
    remarks = [
        f"{printable(name)}: {planted_remark(name)}" for name in names if planted_remark(name)
    ]
    if any(reported_of(name) for name in names):
        remarks.append(f"Reported: {SOURCE}, on one short text; its bands were chosen by hand.")
    return model_maps(views, footnote="\n".join([printable(_reading(examined)), *remarks]))


def begin_comparison(output: Path) -> None:
    """Marks a folder as a comparison's before its parts are written: a kill must not orphan them.

    Raises:
        OutputError: the folder holds something else, or files of ours that were edited since.
        WriteError: it cannot be written.
    """
    from headsurgeon.files import header, write_json

    with writing(output, COMPARISON) as staged:
        write_json(staged / COMPARISON, {**header("comparison"), "finished": False, "models": []})


def write_comparison(output: Path, examined: Sequence[Examined]) -> None:
    """Writes comparison.json and maps.png into a folder that is new, empty, or has the first.

    Raises:
        OutputError: the folder holds something else, or files of ours that were edited since.
        WriteError: they cannot be written.
    """
    from headsurgeon.files import header, write_json
    from headsurgeon.report.style import write_png

    models = [summary(each) for each in examined]
    with writing(output, COMPARISON) as staged:
        content = {**header("comparison"), "finished": True, "models": models}
        write_json(staged / COMPARISON, content)
        write_png(comparison_figure(examined), staged / FIGURE)


def show_comparison(output: Path, examined: Sequence[Examined], written: Sequence[str]) -> None:
    """Prints the table and what else a reader needs to judge it."""
    console = out()
    console.print(heading(f"{len(examined)} models on {_reading(examined)}"), soft_wrap=True)
    console.print()
    names = _names(examined)
    reported = [reported_of(name) for name in names]
    console.print(comparison_table([summary(each) for each in examined], reported))
    remarks = {name: planted_remark(name) for name in names if planted_remark(name)}
    if any(reported):
        remarks["reported"] = f"{SOURCE}, on one short text, so counts need not agree"
    if len({each.vocabulary for each in examined}) > 1:
        remarks["loss"] = (
            "per token of each model's own tokenizer: comparable only between models that share one"
        )
    if any(each.diagnosis.sick for each in examined):
        remarks["sick band"] = (
            "the run of head indices that holds most of the sick heads; the paper's code takes the "
            "first and the last index that is sick in more than 30 % of the layers"
        )
    if remarks:
        console.print()
        console.print(facts(remarks))
    console.print(f"\nwritten to {output}: {', '.join(written)}", soft_wrap=True)


def _names(examined: Sequence[Examined]) -> list[str]:
    return [each.diagnosis.stats.provenance.model for each in examined]


def _title(examined: Examined) -> str:
    """As the titles of the paper's figure 2, and what it reports below."""
    line = summary(examined)
    band = f", {line['band']['name']}" if line["band"] else ""
    title = (
        f"{printable(line['model'])} ({parameters(line)})\n"
        f"{percent(line['sick_share'])} sick ({line['sick']}/{line['heads']}){band}"
    )
    paper = reported_of(line["model"])
    if paper is not None:
        share = f"{percent(paper.sick_share)} ({paper.sick_heads}/{line['heads']})"
        title += f"\nreported: {share}, {paper.band}"
    return title


def _reading(examined: Sequence[Examined]) -> str:
    """The text all of them read; windows differ where tokenizers do."""
    source = examined[0].diagnosis.stats.provenance
    return (
        f"{source.corpus}, split {source.split}: {source.count} windows of {source.length} tokens"
    )
