"""The charts of a study's page."""

import math
from collections.abc import Sequence

import numpy as np

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.heads import parse_heads
from headsurgeon.report import charts
from headsurgeon.report.charts import Level
from headsurgeon.report.data import Bar, Chart, Curve, Table
from headsurgeon.report.run_page import column_charts
from headsurgeon.report.study_heads import first_seeds, masses
from headsurgeon.report.wording import PLANTED_SHORT, ceiling_in_words
from headsurgeon.study.conclusion import StudyResult
from headsurgeon.study.decision_rule import pairs_of
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.results import (
    CellResult,
    StudyResults,
    folder_of,
    stock_file,
    untouched,
)
from headsurgeon.training.log import read_entries
from headsurgeon.training.recorded import redistribution_if_measured
from headsurgeon.training.run_file import LOG_NAME

# arms that are drawn beside the untouched model
_SHOWN = 3
_DOCUMENTS = 6
_OUTCOMES = {"better": "c0", "worse": "c1", "equivalent": "c2", "undecided": "c6"}


def of_text(result: StudyResult, text: str, planted: bool) -> tuple[Chart, ...]:
    """Losses and masses of the arms trained on one text."""
    results = result.results
    trained = first_seeds(results, text)
    if not trained:
        return ()
    note = f" {PLANTED_SHORT}" if planted else ""
    drawn = [_losses(results, text, trained), *_masses(results, text, trained, note)]
    return tuple(drawn)


def of_questions(result: StudyResult, planted: bool) -> tuple[Chart, ...]:
    """The contrasts, and what was recovered."""
    note = f" {PLANTED_SHORT}" if planted else ""
    drawn = []
    if result.decisions:
        drawn.append(_decisions(result, note))
    if any(each.value is not None for each in result.shares):
        drawn.append(_shares(result, note))
    return tuple(drawn)


def of_untouched_heads(result: StudyResult, text: str) -> tuple[Chart, ...]:
    """How far heads that nobody touched moved while the arms trained, and in which columns."""
    results = result.results
    moved = []
    for name, cell in first_seeds(results, text).items():
        found = redistribution_if_measured(folder_of(results.folder, cell.cell))
        if found is not None and results.study.arm(name).model == "subject":
            moved.append(found.replace(run=name))
    if not moved:
        return ()
    alike = [each for each in moved if each.steps == moved[0].steps][: charts.COLOURS]
    lines = {
        each.run: [each.group(~each.mask("operated"), step).mean_could for step in each.steps]
        for each in alike
    }
    drift = charts.lines_chart(
        "Drift of heads nobody touched",
        moved[0].steps,
        lines,
        "mean |change of mass|",
        f"Those that can change, trained on {text}, first seed, dev windows.",
    )
    return (drift, *column_charts(moved[0]))


def of_documents(result: StudyResult) -> tuple[Chart, ...]:
    """For contrasts of losses, the difference in each document, averaged over the seeds of both."""
    results = result.results
    drawn: list[Chart] = []
    for each in result.decisions:
        if each.question == "recovers" or len(drawn) == _DOCUMENTS:
            continue
        pairs = pairs_of(
            results.of(each.arm, each.trained_on), results.of(each.against, each.trained_on)
        )
        if not pairs:
            continue
        ours, theirs = zip(*pairs, strict=True)
        difference = _of_documents(ours, each.text) - _of_documents(theirs, each.text)
        better = int((difference < 0).sum())
        drawn.append(
            charts.sorted_chart(
                f"{each.arm} − {each.against}, {each.text}",
                difference,
                f"{better} of {len(difference)} documents are better (below 0).",
            )
        )
    return tuple(drawn)


def documents_table(result: StudyResult) -> Table | None:
    """The mean loss of each document under the untouched model and the arms of the contrasts."""
    results = result.results
    decided = result.decisions
    if not decided:
        return None
    text, trained_on = decided[0].text, decided[0].trained_on
    names = list(dict.fromkeys([UNTOUCHED, *(n for d in decided for n in (d.arm, d.against))]))
    columns = {name: results.of(name, trained_on) for name in names[:6]}
    losses = {name: _of_documents(cells, text) for name, cells in columns.items() if cells}
    documents = untouched(results).scored[text].documents
    rows = tuple(
        (document, *(f"{loss[place]:.4f}" for loss in losses.values()))
        for place, document in enumerate(documents)
    )
    return Table(
        "documents",
        f"Loss of each test document of {text} (nats per token, mean over the seeds of each arm)",
        ("document", *losses),
        rows,
    )


def _of_documents(cells: Sequence[CellResult], text: str) -> np.ndarray:
    means = [cell.scored[text].evaluation(cell.arm).document_mean for cell in cells]
    return np.asarray(np.mean(means, axis=0))


def _losses(results: StudyResults, text: str, trained: dict[str, CellResult]) -> Chart:
    curves = []
    for name in trained:
        for cell in results.of(name, text):
            if cell.trained is not None:
                tokens, loss = zip(*cell.trained.curve, strict=True)
                label = name if cell.seed is None else f"{name}, seed {cell.seed}"
                curves.append(Curve(label, name, tokens, loss))
    levels = [Level("untouched", value) for value in _untouched_dev(results, trained)]
    ceilings = [
        cell.trained.best_dev_loss
        for name, cell in trained.items()
        if cell.trained is not None and results.study.arm(name).model == "twin"
    ]
    levels += [Level("ceiling, best", min(ceilings))] if ceilings else []
    return charts.loss_chart(
        "Loss on dev text while the arms are trained",
        curves,
        levels,
        f"{text}, dev split; every arm reads the same tokens in the same order, and each line is "
        "one seed. Dashed: the untouched model, and the best of the ceiling. Losses far above, as "
        "right after heads were reinitialised, are drawn at the edge.",
    )


def _untouched_dev(results: StudyResults, trained: dict[str, CellResult]) -> list[float]:
    """Loss of the untouched model on the dev windows, from the log of an arm that trains it."""
    for name, cell in trained.items():
        if results.study.arm(name).model != "subject":
            continue
        entries = read_entries(folder_of(results.folder, cell.cell) / LOG_NAME)
        if entries and entries[0]["kind"] == "start":
            return [float(entries[0]["dev_loss"])]
    return []


def _masses(
    results: StudyResults, text: str, trained: dict[str, CellResult], note: str
) -> list[Chart]:
    stock = Diagnosis.load(stock_file(results.folder, text)).stats
    limits = results.study.plan.limits
    planned = np.zeros(stock.shape, dtype=bool)
    for head in parse_heads(untouched(results).operated):
        planned[head] = True
    of_subject = {
        name: cell
        for name, cell in trained.items()
        if results.study.arm(name).model == "subject"
        and cell.operated == untouched(results).operated
    }
    cells = {"untouched": untouched(results), **dict(list(of_subject.items())[:_SHOWN])}
    nulls = [
        cell.recovery.null_mass[text] for cell in trained.values() if cell.recovery is not None
    ]
    null = np.array(nulls) if nulls else stock.null_mass[planned]
    drawn = [
        charts.mass_chart(
            f"Mass of the {int(planned.sum())} planned heads",
            {name: masses(cell, text, planned) for name, cell in cells.items()},
            null,
            limits,
            "Test windows, first seed. The yellow band is the null: the same heads reinitialised "
            f"and not trained, which leave the sick class as well.{note}",
        )
    ]
    if stock.slopes.any():
        drawn.append(
            charts.slope_chart(
                "Mass against slope, all heads",
                {name: masses(cell, text) for name, cell in list(cells.items())[:2]},
                stock.slopes.ravel(),
                limits,
                f"Shallow slopes reach the first token cheaply; dashed: sick above.{note}",
            )
        )
    return drawn


def _decisions(result: StudyResult, note: str) -> Chart:
    bars = []
    for each in result.decisions:
        value, low, high = (math.nan if n is None else n for n in (each.value, each.low, each.high))
        what = f"{each.arm} − {each.against}, {each.text}"
        if each.question == "recovers":
            what = f"{each.arm}: work of its heads, {each.text}"
        bars.append(Bar(f"{what}: {each.outcome}", _OUTCOMES[each.outcome], value, low, high))
    return charts.interval_chart(
        "What the contrasts came to",
        bars,
        "Difference of loss, nats per token, on test text; below 0 is better. Intervals share the "
        f"study's level.{note}",
    )


def _shares(result: StudyResult, note: str) -> Chart:
    bars = [
        Bar(
            f"{each.arm}, {each.text}",
            "c0",
            *(math.nan if n is None else n for n in (each.value, each.low, each.high)),
        )
        for each in result.shares
    ]
    return charts.interval_chart(
        "How much of what could be recovered was recovered",
        bars,
        "0 is the untouched model; 100 % is the ceiling: "
        f"{ceiling_in_words(result.results.study)}. 95 % intervals over documents.{note}",
        references=((0.0, "untouched"), (1.0, "ceiling")),
        percent=True,
    )
