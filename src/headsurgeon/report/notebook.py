"""Results as a notebook shows them: a head map and a table, escaped, without scripts or styles."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import singledispatch

import numpy as np
from markupsafe import Markup

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.errors import HeadsurgeonError
from headsurgeon.heads import NO_ATTENTION
from headsurgeon.models.planted import is_planted
from headsurgeon.planning.plan import Plan
from headsurgeon.printable import printable
from headsurgeon.report.data import HeadView
from headsurgeon.report.head_map_svg import head_map_svg
from headsurgeon.report.logged_view import bare_view, mass_view
from headsurgeon.report.wording import PLANTED_SHORT, sentence, shares_in_words
from headsurgeon.study.conclusion import StudyResult
from headsurgeon.study.results import PREPARED, Prepared, stock_file
from headsurgeon.training.recorded import redistribution
from headsurgeon.training.run_result import Run

# rows of a table
_MOST = 12


@singledispatch
def as_html(result: object) -> Markup | None:
    """What a notebook shows of a result; None of what has no picture."""
    return None


@as_html.register
def _(result: Diagnosis) -> Markup:
    source = result.stats.provenance
    view = HeadView.of(
        source.model, result.stats, result.verdicts, result.borderline, result.thresholds
    )
    rows = [(str(verdict), str(count)) for verdict, count in result.counts.items()]
    rows.append(("borderline among them", str(int(result.borderline.sum()))))
    return _shown(
        f"{source.model} on {source.corpus}, split {source.split}: {len(result.sick)} of "
        f"{result.heads} heads sick",
        head_map_svg(view),
        _table(("verdict", "heads"), rows),
        PLANTED_SHORT if is_planted(source.model) else "",
    )


@as_html.register
def _(result: Plan) -> Markup:
    layers, heads = (
        max((head.id[axis] for head in result.heads), default=0) + 1 for axis in (0, 1)
    )
    mass = np.full((layers, heads), np.nan)
    verdicts = np.full((layers, heads), NO_ATTENTION, dtype="U12")
    for head in result.heads:
        mass[head.id] = head.statistics.get("first_token_mass", np.nan)
        verdicts[head.id] = head.verdict or "healthy"
    rows = [
        (
            str(head.id),
            head.role,
            head.verdict,
            _number(head.statistics.get("first_token_mass")),
            _number(head.ablation_cost, "+.4f"),
        )
        for head in result.heads
    ]
    view = bare_view(f"plan for {result.model}", mass, verdicts, result.limits)
    return _shown(
        f"Plan for {result.model}: {len(result.operated)} heads to operate on, rule {result.rule}",
        # without the model it is not known which heads there are besides
        head_map_svg(view, result.operated, result.watched, titles=False) if rows else Markup(),
        _table(("head", "role", "verdict", "mass", "ablating costs (nats)"), rows),
        PLANTED_SHORT if is_planted(result.model) else "",
    )


@as_html.register
def _(result: Run) -> Markup:
    rows = [
        ("steps", str(result.steps)),
        ("tokens", f"{result.tokens:,}"),
        ("lowest loss on dev text", f"{result.best_dev_loss:.4f} at step {result.best_step}"),
        ("kept", f"{result.kept_dev_loss:.4f} at step {result.kept_step}"),
        ("patch", str(result.patch)),
    ]
    picture, note = Markup(), ""
    # the folder may be gone, and heads need not have been measured
    with suppress(HeadsurgeonError):
        found = redistribution(result.folder)
        view = mass_view(f"{found.run}, step {found.steps[-1]}", found, found.mass[-1])
        picture = head_map_svg(view, found.operated, found.watched)
        note = PLANTED_SHORT if is_planted(found.model) else ""
    title = f"Run {result.folder.name}: heads at its last evaluation"
    return _shown(
        title if picture else f"Run {result.folder.name}", picture, _table((), rows), note
    )


@as_html.register
def _(result: StudyResult) -> Markup:
    study, folder = result.results.study, result.folder
    texts = [text for text in study.train_on if stock_file(folder, text).is_file()]
    picture, planted = Markup(), False
    for text in texts[:1]:
        stock = Diagnosis.load(stock_file(folder, text))
        view = HeadView.of(
            f"{study.model}, untouched, on {text}",
            *(stock.stats, stock.verdicts, stock.borderline, stock.thresholds),
        )
        picture = head_map_svg(view)
        planted = Prepared.load(folder / PREPARED).planted
    rows = [(each.contrast, each.text, each.outcome, sentence(each)) for each in result.decisions]
    missing, failed = result.results.missing, result.results.failed
    said = [shares_in_words(result.shares, study), PLANTED_SHORT if planted else ""]
    said += [f"{len(missing)} cells are missing."] if missing else []
    said += [f"{len(failed)} cells failed."] if failed else []
    return _shown(
        f"Study {study.name} on {study.model}, {len(result.results.cells)} cells: the map is of "
        "the untouched model",
        picture,
        _table(("contrast", "text", "outcome", "in words"), rows),
        " ".join(part for part in said if part),
    )


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form).replace("-", "−")


def _shown(title: str, picture: Markup, table: Markup, note: str) -> Markup:
    said = Markup("<p>{}</p>").format(printable(note)) if note else Markup()
    heading = Markup("<p><b>{}</b></p>").format(printable(title))
    return Markup("<div>{}{}{}{}</div>").format(heading, picture, table, said)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    """A plain table, which notebooks style themselves; of many rows the first."""
    more = len(rows) - _MOST
    lines = [_row("td", row) for row in rows[:_MOST]]
    if more > 0:
        lines.append(_row("td", (f"and {more} more",)))
    head = Markup("<thead>{}</thead>").format(_row("th", columns)) if columns else Markup()
    return Markup("<table>{}<tbody>{}</tbody></table>").format(head, Markup().join(lines))


def _row(tag: str, cells: Iterable[str]) -> Markup:
    inside = Markup().join(
        Markup(f'<{tag} style="text-align:left">{{}}</{tag}>').format(printable(cell))
        for cell in cells
    )
    return Markup("<tr>{}</tr>").format(inside)
