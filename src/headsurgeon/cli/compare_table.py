"""Several models in one table: what was measured, and below it what the paper reports."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from headsurgeon.cli.console import bounds, percent, table
from headsurgeon.heads import VERDICTS
from headsurgeon.paper import ReportedDiagnosis

if TYPE_CHECKING:
    from rich.table import Table

_NOTHING = "—"
Reported = Sequence[ReportedDiagnosis | None]
Line = Mapping[str, Any]


def comparison_table(lines: Sequence[Line], reported: Reported) -> "Table":
    """One column per model; where one has published figures they stand below the measured ones.

    Args:
        lines: what `compare.summary` says of each model.
        reported: what the paper says of each, if anything.
    """
    rows: list[list[str | Text]] = [
        ["layers × heads", *(_shape(line) for line in lines)],
        ["parameters", *(parameters(line) for line in lines)],
        ["heads", *(str(line["heads"]) for line in lines)],
        ["sick", *(f"{percent(line['sick_share'])} ({line['sick']})" for line in lines)],
        *_reported(reported, lambda paper: f"{percent(paper.sick_share)} ({paper.sick_heads})"),
        [" / ".join(VERDICTS), *(_counts(line["counts"]) for line in lines)],
        *_reported(reported, lambda paper: _counts(paper.counts) if paper.counts else _NOTHING),
        ["sick band", *(line["band"]["name"] if line["band"] else _NOTHING for line in lines)],
        ["  by the rule of the paper's code", *(_code_band(line) for line in lines)],
        *_reported(reported, lambda paper: paper.band, "  reported, chosen by hand"),
        ["sick layers per head index", *(_per_index(line) for line in lines)],
        ["sick heads per layer", *(_per_layer(line) for line in lines)],
        ["held-out loss, nats per token", *(_loss(line) for line in lines)],
        ["perplexity", *(_perplexity(line) for line in lines)],
        ["MLP dormancy", *(_dormancy(line) for line in lines)],
        *_reported(
            reported,
            lambda paper: _NOTHING if paper.dormancy is None else percent(paper.dormancy),
        ),
        ["borderline heads", *(str(line["borderline"]) for line in lines)],
        ["null mass", *("{:.3f}–{:.3f}".format(*line["null_mass"]) for line in lines)],
        ["rank correlation of mass with slope", *(_correlation(line) for line in lines)],
    ]
    return table(["", *(line["model"] for line in lines)], rows)


def parameters(line: Line) -> str:
    """How many parameters a model has, tied ones once, as they are usually said."""
    count = line["parameters"]
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)


def _reported(
    reported: Reported, of: Callable[[ReportedDiagnosis], str], name: str = "  reported"
) -> list[list[str | Text]]:
    """A row with what the paper says, where it says anything of any of the models."""
    cells = [_NOTHING if paper is None else of(paper) for paper in reported]
    return [[name, *cells]] if set(cells) != {_NOTHING} else []


def _shape(line: Line) -> str:
    without = len(line["layers_without_attention"])
    attending = f" ({line['layers'] - without} attend)" if without else ""
    return f"{line['layers']}{attending} × {line['heads_per_layer']}"


def _counts(counts: Mapping[str, int]) -> str:
    return " / ".join(str(counts[verdict]) for verdict in VERDICTS)


def _code_band(line: Line) -> str:
    band = line["band_by_the_papers_code"]
    return _NOTHING if band is None else f"heads {band[0]}–{band[1]}"


def _per_index(line: Line) -> Text:
    """The head indices with sick layers, one per line: in how many layers each."""
    affected = line["layers_affected_per_head"]
    columns = [f"H{head}: {sick} of {line['layers']}" for head, sick in enumerate(affected) if sick]
    return Text("\n".join(columns) or _NOTHING)


def _per_layer(line: Line) -> Text:
    """The layers with sick heads, one per line: how many heads each."""
    sick = line["sick_heads_per_layer"]
    heads = line["heads_per_layer"]
    rows = [f"L{layer}: {count} of {heads}" for layer, count in enumerate(sick) if count]
    return Text("\n".join(rows) or _NOTHING)


def _loss(line: Line) -> str:
    loss = line["held_out"]
    return _NOTHING if loss is None else f"{loss['loss']:.4f} {bounds(loss['low'], loss['high'])}"


def _perplexity(line: Line) -> str:
    loss = line["held_out"]
    return _NOTHING if loss is None else f"{loss['perplexity']:.2f}"


def _dormancy(line: Line) -> str:
    shares = [share for share in line["mlp_dormancy"] if share is not None]
    return percent(sum(shares) / len(shares)) if shares else _NOTHING


def _correlation(line: Line) -> str:
    value = line["mass_slope_correlation"]
    return _NOTHING if value is None else f"{value:+.2f}".replace("-", "−")
