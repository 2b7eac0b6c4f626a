"""The pages of what is known before anything is operated on: diagnoses, plans, series."""

import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from headsurgeon.data.spec import GIVEN, parse
from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.diagnosis.series import HeadSeries
from headsurgeon.errors import CorpusError, InputError
from headsurgeon.files import package_version, read_json
from headsurgeon.models.loaded_with import as_options
from headsurgeon.models.planted import is_planted
from headsurgeon.planning.plan import Plan
from headsurgeon.report import charts, study_before
from headsurgeon.report.data import KeyFigure, Page, Section, Table
from headsurgeon.report.run_heads import heads_of_diagnosis, heads_of_series
from headsurgeon.report.study_tables import planned
from headsurgeon.report.wording import NOT_PLANTED, PLANTED
from headsurgeon.training.repeating import DTYPE_OPTIONS

_READING = ("split", "length", "count", "seed", "packing")


def of_folder(folder: Path) -> Page:
    """What `diagnose` wrote, with the plan where it lies beside it."""
    plan = folder / "plan.yaml"
    diagnosis = Diagnosis.load(folder / "diagnosis.json")
    return page(diagnosis, Plan.load(plan) if plan.is_file() else None)


def page(diagnosis: Diagnosis, plan: Plan | None = None) -> Page:
    """Verdicts, masses against slopes, and where the sick heads are."""
    source = diagnosis.stats.provenance
    return Page(
        title=f"Diagnosis of {source.model}",
        lead=tuple(_found(diagnosis)),
        notice=_notice(source.model),
        figures=_figures(diagnosis),
        heads=(heads_of_diagnosis(diagnosis, source.model, plan),),
        sections=_sections({source.model: diagnosis}, plan),
        facts=_facts(diagnosis),
        command=_command(diagnosis),
    )


def _command(diagnosis: Diagnosis) -> str:
    """What measures the same heads on the same text again; empty where its tokens were given."""
    source = diagnosis.stats.provenance
    try:
        given = parse(source.corpus)[0].corpora[0].kind == GIVEN
    except CorpusError:
        return ""
    # texts that are given are read whole
    reading = {} if given else {name: getattr(source, name) for name in _READING}
    options = {"corpus": source.corpus, "first-token": source.first_token, **reading}
    if source.dtype in DTYPE_OPTIONS:
        options["dtype"] = DTYPE_OPTIONS[source.dtype]
    limits = diagnosis.thresholds.model_dump(exclude_defaults=True)
    words = ["headsurgeon", "diagnose", source.model, *as_options(source.loaded_with)]
    for name, value in {**options, **limits}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return f"{shlex.join(words)} --output DIR"


def of_plan(plan: Plan) -> Page:
    """A plan alone: its heads and what was known of them."""
    return Page(
        title=f"Plan for {plan.model}",
        lead=(
            f"{len(plan.operated)} heads are to be operated on, {len(plan.watched)} watched "
            f"(rule {plan.rule}).",
            *plan.notes,
        ),
        notice=_notice(plan.model),
        sections=(Section("Heads", tables=(planned(plan),)),),
        facts={
            "headsurgeon": package_version(),
            "start": f"{plan.init}, {plan.output_start}, seed {plan.seed}",
            "weights (SHA-256)": plan.fingerprint or "–",
        },
    )


def of_comparison(folder: Path) -> Page:
    """Several models side by side, as `compare` wrote them."""
    content = read_json(folder / "comparison.json", "comparison")
    places = sorted(path.parent for path in folder.glob("*/diagnosis.json"))
    if not places:
        raise InputError(f"{folder}: the comparison has not finished; run it again")
    diagnoses = [Diagnosis.load(place / "diagnosis.json") for place in places]
    by_name = {each.stats.provenance.model: each for each in diagnoses}
    first = diagnoses[0].stats.provenance
    planted = any(is_planted(name) for name in by_name)
    return Page(
        title=f"{len(by_name)} models compared",
        lead=tuple(line for each in diagnoses for line in _found(each)[:1]),
        notice=PLANTED if planted else "",
        heads=tuple(heads_of_diagnosis(each, name) for name, each in by_name.items()),
        sections=_sections(by_name, None),
        facts={
            "headsurgeon": str(content["headsurgeon"]),
            "text": f"{first.corpus}, {first.split} split",
            "every figure": "comparison.json and */diagnosis.json",
        },
    )


def of_series(series: HeadSeries) -> Page:
    """Heads along a training: which collapsed or came back, and when."""
    source = series.source
    rows = tuple(
        (
            str(each.head),
            each.kind,
            str(series.steps[each.measured]),
        )
        for each in series.crossings
    )
    return Page(
        title=f"Heads of {source.model} while it was trained",
        lead=(
            f"{len(series.points)} measurements from step {series.steps[0]} to "
            f"{series.steps[-1]}: {len(series.sick(0))} heads are sick at the first, "
            f"{len(series.sick(-1))} at the last."
            if series.points
            else "Nothing has been measured yet.",
        ),
        notice=_notice(source.model),
        heads=(heads_of_series(series, source.model),) if series.points else (),
        sections=(
            Section(
                "Crossings",
                tables=(
                    Table(
                        "crossings",
                        "Heads that collapsed or came back",
                        ("head", "what", "step"),
                        rows,
                    ),
                ),
            ),
        ),
        facts={
            "headsurgeon": package_version(),
            "text": f"{source.corpus}, {source.split} split, {source.count} windows",
            "precision": source.dtype,
            "attention": source.attention,
        },
    )


def _found(diagnosis: Diagnosis) -> list[str]:
    source, counts = diagnosis.stats.provenance, diagnosis.counts
    said = [
        f"{source.model}: {len(diagnosis.sick)} of {diagnosis.heads} heads are sick on "
        f"{source.corpus} ({counts['sink']} sinks, {counts['dead']} dead); "
        f"{int(diagnosis.borderline.sum())} are borderline."
    ]
    band = diagnosis.sick_band
    if band is not None:
        said.append(f"Most of them are in {band}: {band.sick} of {len(diagnosis.sick)}.")
    said.append("A sink may be work: what ablating it costs says so, before anything is cut.")
    return said


def _figures(diagnosis: Diagnosis) -> tuple[KeyFigure, ...]:
    null = diagnosis.stats.null_mass
    return (
        KeyFigure(f"{len(diagnosis.sick)} of {diagnosis.heads}", "heads are sick"),
        KeyFigure(
            f"{np.nanmin(null):.3f} to {np.nanmax(null):.3f}", "mass of an untrained head", "null"
        ),
        KeyFigure(str(len(set(diagnosis.stats.documents))), "documents"),
    )


def _sections(diagnoses: Mapping[str, Diagnosis], plan: Plan | None) -> tuple[Section, ...]:
    drawn = []
    for name, each in diagnoses.items():
        stats = each.stats
        mass = stats.first_token_mass.ravel()
        drawn.append(
            charts.mass_chart(
                f"Mass of all heads: {name}",
                {"heads": mass},
                stats.null_mass.ravel(),
                each.thresholds,
                "Yellow: the null, which untrained heads show.",
            )
        )
        if stats.slopes.any():
            drawn.append(
                charts.slope_chart(
                    f"Mass against slope: {name}",
                    {"heads": mass},
                    stats.slopes.ravel(),
                    each.thresholds,
                    "Shallow slopes reach the first token cheaply.",
                )
            )
    shown = (study_before.verdicts(diagnoses),)
    found = [Section("Verdicts", charts=tuple(drawn), tables=shown)]
    if plan is not None:
        found.append(Section("The plan", tables=(planned(plan),)))
    return tuple(found)


def _facts(diagnosis: Diagnosis) -> dict[str, str]:
    source = diagnosis.stats.provenance
    return {
        "headsurgeon": package_version(),
        "text": f"{source.corpus}, {source.split} split, {source.count} windows of "
        f"{source.length} tokens, seed {source.seed}",
        "text (SHA-256)": source.corpus_hash,
        "first token": source.first_token,
        "precision": source.dtype,
        "attention": source.attention,
        "every figure": "diagnosis.json and heads.csv",
    }


def _notice(model: str) -> str:
    return PLANTED if is_planted(model) else NOT_PLANTED
