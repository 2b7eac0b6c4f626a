"""A diagnosis in words and numbers: what `diagnose` prints below its map."""

from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from rich.table import Table
from rich.text import Text

from headsurgeon.cli.console import bounds, facts, first_few, head_map, out, percent, table
from headsurgeon.heads import VERDICTS
from headsurgeon.paper import SOURCE, ReportedDiagnosis, reported_diagnosis

if TYPE_CHECKING:
    from headsurgeon.diagnosis import Diagnosis, FirstTokenTest
    from headsurgeon.head_stats import Provenance


def show_diagnosis(
    diagnosis: "Diagnosis",
    dormancy: Float[np.ndarray, " layer"] | None = None,
    test: "FirstTokenTest | None" = None,
) -> None:
    """Prints map, counts and what else a reader needs to judge them."""
    console = out()
    source = diagnosis.stats.provenance
    documents = len(set(diagnosis.stats.documents))
    where = (
        f" on {source.corpus}, split {source.split}: {source.count} windows of {source.length} "
        f"tokens from {documents} documents, first token {source.first_token}"
    )
    console.print(Text.assemble((source.model, "bold"), where))
    console.print()
    console.print(head_map(diagnosis))
    console.print()
    published = reported_diagnosis(source.model)
    console.print(counts_table(diagnosis, published))
    console.print()
    lines = {**_findings(diagnosis), **_dormancy(dormancy), **_first_token(test)}
    console.print(facts(lines))
    if published is not None:
        console.print(f"\nreported in {SOURCE} on one short text, for comparison")
        share = f"{percent(published.sick_share)} sick, {published.band}"
        for line in (share, *published.remarks):
            console.print(f"  {line}")


def counts_table(diagnosis: "Diagnosis", published: ReportedDiagnosis | None = None) -> Table:
    """Heads per verdict, with the published counts beside them where there are some."""
    total = diagnosis.heads
    reported = published.counts if published is not None else None
    columns = ["verdict", "heads", "share", *(["reported"] if reported else [])]
    rows = [
        [
            verdict,
            str(diagnosis.counts[verdict]),
            percent(diagnosis.counts[verdict] / total),
            *([str(reported[verdict])] if reported else []),
        ]
        for verdict in VERDICTS
    ]
    return table(columns, rows)


def _ran(provenance: "Provenance") -> str:
    """Which attention the statistics come from."""
    own = "the model's own, statistics in blocks"
    ours = f"in one pass with the statistics ({provenance.attention})"
    return f"{own if provenance.attention == 'blocks' else ours}; {provenance.dtype}"


def _findings(diagnosis: "Diagnosis") -> dict[str, str]:
    stats = diagnosis.stats
    lines = {
        "sick band": _band(diagnosis),
        "null": _null(diagnosis),
        "attention": _ran(stats.provenance),
    }
    without = np.flatnonzero(~stats.attends)
    if len(without):
        lines["no attention"] = (
            f"in {len(without)} of {len(stats.attends)} layers, which are left out: "
            + first_few([f"L{layer}" for layer in without])
        )
    unsure = [tuple(place) for place in np.argwhere(diagnosis.borderline)]
    lines["borderline"] = "none"
    if unsure:
        lines["borderline"] = first_few(
            [
                f"L{layer}H{head} {stats.first_token_mass[layer, head]:.2f} "
                + bounds(diagnosis.mass_low[layer, head], diagnosis.mass_high[layer, head], ".2f")
                for layer, head in unsure
            ],
            limit=8,
        )
    elif np.isnan(diagnosis.mass_low).all():
        lines["borderline"] = "unknown: one document gives no interval; read more documents"
    correlation = diagnosis.mass_slope_correlation
    if correlation is not None:
        lines["slope"] = f"rank correlation of mass with slope {correlation:+.2f}" + (
            ": the shallower, the more mass" if correlation < -0.3 else ""
        )
    return lines


def _band(diagnosis: "Diagnosis") -> str:
    band = diagnosis.sick_band
    if band is None:
        return "no sick head"
    return f"{band}: {band.sick} of {len(diagnosis.sick)} sick heads"


def _null(diagnosis: "Diagnosis") -> str:
    null = diagnosis.stats.null_mass
    text = f"an untrained head would have mass {np.nanmin(null):.3f} to {np.nanmax(null):.3f} here"
    if diagnosis.sick:
        mass = diagnosis.stats.first_token_mass[diagnosis.is_sick]
        text += f"; the sick heads have {mass.min():.3f} to {mass.max():.3f}"
    return text


def _dormancy(dormancy: Float[np.ndarray, " layer"] | None) -> dict[str, str]:
    if dormancy is None:
        return {}
    if np.isnan(dormancy).all():
        return {"MLP dormancy": "this family has no dense MLP to look at"}
    worst = int(dormancy.argmax())
    text = f"{percent(float(dormancy.mean()))} of the MLP neurons have weights too small to matter"
    if dormancy[worst] > 0:
        text += f"; most in layer {worst}, {percent(float(dormancy[worst]))}"
    return {"MLP dormancy": text}


def _first_token(test: "FirstTokenTest | None") -> dict[str, str]:
    if test is None:
        return {}
    if not test.heads:
        return {"position or token": "no sick head to test"}
    tested = list(test.heads.values())
    follows = [each.follows for each in tested]
    replaced = fmean(mass for each in tested for mass in each.replaced)
    counts = {kind: follows.count(kind) for kind in ("position", "token", "mixed")}
    text = (
        f"of {len(test.heads)} sick heads {counts['position']} follow position 0 whatever stands "
        f"there, {counts['token']} the token, {counts['mixed']} sometimes the one, sometimes the "
        f"other; mean mass "
        f"{fmean(each.original for each in tested):.2f}, with other first tokens {replaced:.2f}, "
        f"with the first token dropped {fmean(each.dropped for each in tested):.2f}"
    )
    return {"position or token": text}
