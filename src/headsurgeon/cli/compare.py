"""Several models side by side: what `diagnose` shows and writes when it is given more than one."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from headsurgeon.cli.console import facts, heading, out, percent, table
from headsurgeon.cli.options import Loading
from headsurgeon.cli.planted import planted_remark
from headsurgeon.errors import SettingsError
from headsurgeon.heads import VERDICTS
from headsurgeon.own_files import writing
from headsurgeon.paper import SOURCE, ReportedDiagnosis, reported_diagnosis
from headsurgeon.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

    from headsurgeon.diagnosis import Diagnosis

COMPARISON = "comparison.json"
FIGURE = "maps.png"
_NOTHING = "—"


def check_models(models: Sequence[str], loading: Loading) -> None:
    """Refuses what would fail after hours of measuring: reads the configurations alone.

    Raises:
        SettingsError: a model named twice.
        ModelError, UnsupportedModel, NetworkError: as `headsurgeon.load` does.
    """
    # a folder has many spellings
    places = [os.path.realpath(model) if Path(model).exists() else model for model in models]
    twice = sorted({m for m, place in zip(models, places, strict=True) if places.count(place) > 1})
    if twice:
        raise SettingsError(f"{', '.join(twice)}: named more than once; name each model once")
    from headsurgeon.arch.registry import layout_for
    from headsurgeon.models.loading import load_config

    for model in models:
        layout_for(load_config(model, trust_remote_code=loading.trust_remote_code))


def folder_names(models: Sequence[str]) -> list[str]:
    """A folder name for each model, all different."""
    names: list[str] = []
    for model in models:
        stem = re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"
        taken = sum(name == stem or name.startswith(f"{stem}-again") for name in names)
        names.append(f"{stem}-again{taken}" if taken else stem)
    return names


def summary(diagnosis: "Diagnosis") -> dict[str, Any]:
    """One model's line of the comparison, as plain data; shares are fractions."""
    from dataclasses import asdict

    import numpy as np

    from headsurgeon.models.catalogue import is_planted

    stats = diagnosis.stats
    layers, heads = stats.shape
    band = diagnosis.sick_band
    published = reported_diagnosis(stats.provenance.model)
    return {
        "model": stats.provenance.model,
        "layers": layers,
        "heads_per_layer": heads,
        "layers_without_attention": np.flatnonzero(~stats.attends).tolist(),
        "heads": diagnosis.heads,
        "counts": diagnosis.counts,
        "sick": len(diagnosis.sick),
        "sick_share": len(diagnosis.sick) / diagnosis.heads,
        "band": None if band is None else {**asdict(band), "name": str(band)},
        "layers_affected_per_head": [int(count) for count in diagnosis.per_index],
        "borderline": int(diagnosis.borderline.sum()),
        "null_mass": [float(np.nanmin(stats.null_mass)), float(np.nanmax(stats.null_mass))],
        "mass_slope_correlation": diagnosis.mass_slope_correlation,
        "planted": is_planted(stats.provenance.model),
        "provenance": stats.provenance.model_dump(),
        "published": None if published is None else {**asdict(published), "source": SOURCE},
    }


def comparison_table(diagnoses: Sequence["Diagnosis"]) -> "Table":
    """One column per model; where one has published figures they stand below the measured ones."""
    lines = [summary(diagnosis) for diagnosis in diagnoses]
    reported = [reported_diagnosis(line["model"]) for line in lines]
    rows: list[list[str | Text]] = [
        ["layers × heads", *(_shape(line) for line in lines)],
        ["heads", *(str(line["heads"]) for line in lines)],
        ["sick", *(f"{percent(line['sick_share'])} ({line['sick']})" for line in lines)],
        *_reported(reported, lambda paper: percent(paper.sick_share)),
        [" / ".join(VERDICTS), *(_counts(line["counts"]) for line in lines)],
        *_reported(reported, lambda paper: _counts(paper.counts) if paper.counts else _NOTHING),
        ["sick band", *(line["band"]["name"] if line["band"] else _NOTHING for line in lines)],
        *_reported(reported, lambda paper: paper.band),
        ["sick layers per head index", *(_per_index(line) for line in lines)],
        ["borderline heads", *(str(line["borderline"]) for line in lines)],
        ["null mass", *("{:.3f}–{:.3f}".format(*line["null_mass"]) for line in lines)],
        ["rank correlation of mass with slope", *(_correlation(line) for line in lines)],
    ]
    return table(["", *(line["model"] for line in lines)], rows)


def comparison_figure(diagnoses: Sequence["Diagnosis"]) -> "Figure":
    """One head map per model, above it how many heads are sick and where, and what is reported."""
    from headsurgeon.report.comparison import model_maps
    from headsurgeon.report.data import HeadView

    views = [
        HeadView.of(
            _title(diagnosis),
            diagnosis.stats,
            diagnosis.verdicts,
            diagnosis.borderline,
            diagnosis.thresholds,
        )
        for diagnosis in diagnoses
    ]
    names = [diagnosis.stats.provenance.model for diagnosis in diagnoses]
    remarks = [
        f"{printable(name)}: {planted_remark(name)}" for name in names if planted_remark(name)
    ]
    if any(reported_diagnosis(name) for name in names):
        remarks.append(f"Reported: {SOURCE}, on one short text.")
    reading = printable(_reading(diagnoses))
    return model_maps(views, footnote="\n".join([reading, *remarks]))


def begin_comparison(output: Path) -> None:
    """Marks a folder as a comparison's before its parts are written: a kill must not orphan them.

    Raises:
        OutputError: the folder holds something else, or files of ours that were edited since.
        WriteError: it cannot be written.
    """
    from headsurgeon.files import header, write_json

    with writing(output, COMPARISON) as staged:
        write_json(staged / COMPARISON, {**header("comparison"), "finished": False, "models": []})


def write_comparison(output: Path, diagnoses: Sequence["Diagnosis"]) -> None:
    """Writes comparison.json and maps.png into a folder that is new, empty, or has the first.

    Raises:
        OutputError: the folder holds something else, or files of ours that were edited since.
        WriteError: they cannot be written.
    """
    from headsurgeon.files import header, write_json
    from headsurgeon.report.style import write_png

    models = [summary(diagnosis) for diagnosis in diagnoses]
    with writing(output, COMPARISON) as staged:
        content = {**header("comparison"), "finished": True, "models": models}
        write_json(staged / COMPARISON, content)
        write_png(comparison_figure(diagnoses), staged / FIGURE)


def show_comparison(output: Path, diagnoses: Sequence["Diagnosis"], written: Sequence[str]) -> None:
    """Prints the table and what else a reader needs to judge it."""
    console = out()
    console.print(heading(f"{len(diagnoses)} models on {_reading(diagnoses)}"), soft_wrap=True)
    console.print()
    console.print(comparison_table(diagnoses))
    names = [diagnosis.stats.provenance.model for diagnosis in diagnoses]
    remarks = {name: planted_remark(name) for name in names if planted_remark(name)}
    if any(reported_diagnosis(name) for name in names):
        remarks["reported"] = f"{SOURCE}, on one short text, so counts need not agree"
    if remarks:
        console.print()
        console.print(facts(remarks))
    console.print(f"\nwritten to {output}: {', '.join(written)}", soft_wrap=True)


def _reported(reported: Sequence[ReportedDiagnosis | None], of: Any) -> list[list[str | Text]]:
    """A row with what the paper says, where it says anything of any of the models."""
    cells = [_NOTHING if paper is None else str(of(paper)) for paper in reported]
    return [["  reported", *cells]] if set(cells) != {_NOTHING} else []


def _shape(line: dict[str, Any]) -> str:
    without = len(line["layers_without_attention"])
    attending = f" ({line['layers'] - without} attend)" if without else ""
    return f"{line['layers']}{attending} × {line['heads_per_layer']}"


def _counts(counts: dict[str, int]) -> str:
    return " / ".join(str(counts[verdict]) for verdict in VERDICTS)


def _per_index(line: dict[str, Any]) -> Text:
    """The head indices with sick layers, one per line: in how many layers each."""
    affected = line["layers_affected_per_head"]
    columns = [f"H{head}: {sick} of {line['layers']}" for head, sick in enumerate(affected) if sick]
    return Text("\n".join(columns) or _NOTHING)


def _correlation(line: dict[str, Any]) -> str:
    value = line["mass_slope_correlation"]
    return _NOTHING if value is None else f"{value:+.2f}".replace("-", "−")


def _title(diagnosis: "Diagnosis") -> str:
    line = summary(diagnosis)
    band = f", {line['band']['name']}" if line["band"] else ""
    title = f"{printable(line['model'])}\n{percent(line['sick_share'])} sick{band}"
    published = reported_diagnosis(line["model"])
    if published is not None:
        title += f"\nreported: {percent(published.sick_share)}, {published.band}"
    return title


def _reading(diagnoses: Sequence["Diagnosis"]) -> str:
    """The text all of them read; windows differ where tokenizers do."""
    source = diagnoses[0].stats.provenance
    return (
        f"{source.corpus}, split {source.split}: {source.count} windows of {source.length} tokens"
    )
