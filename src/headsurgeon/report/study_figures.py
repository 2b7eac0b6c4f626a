"""The figures of a study; where the collapse was planted, each says so."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.diagnosis.verdicts import classify
from headsurgeon.heads import parse_heads
from headsurgeon.printable import printable
from headsurgeon.report.data import Bar, Curve, HeadView, Picture
from headsurgeon.report.figures import interval_bars, loss_curves
from headsurgeon.report.head_map_figure import head_map
from headsurgeon.report.mass_figure import MassPanel, mass_histogram
from headsurgeon.report.style import write_png
from headsurgeon.report.wording import PLANTED_SHORT
from headsurgeon.study.conclusion import StudyResult
from headsurgeon.study.decision_rule import Share
from headsurgeon.study.results import CellResult, StudyResults, stock_file, untouched

# of an arm with several seeds the first is drawn
_SHOWN = 3


def draw(result: StudyResult, folder: Path, planted: bool) -> dict[str, Picture]:
    """Draws every figure, writes it to `folder` as a PNG, and returns them for the page."""
    results = result.results
    drawn: dict[str, tuple[Figure, str]] = {}
    for text in results.study.train_on:
        trained = _trained(results, text)
        if trained:
            drawn[f"head_map_{text}"] = _map(results, text, trained, planted)
            drawn[f"mass_{text}"] = _mass(results, text, trained, planted)
            drawn[f"loss_{text}"] = _loss(results, text, trained, planted)
    if any(each.value is not None for each in result.shares):
        drawn["shares"] = _shares(result.shares, results, planted)
    if result.decisions:
        drawn["decisions"] = _decisions(result, planted)
    return {
        name: Picture(
            write_png(figure, folder / f"{name}.png"), f"{caption} {_note(planted)}".strip()
        )
        for name, (figure, caption) in drawn.items()
    }


def _trained(results: StudyResults, text: str) -> dict[str, CellResult]:
    """The first seed of every trained arm."""
    found = {}
    for arm in results.study.arms:
        cells = [cell for cell in results.of(arm.name, text) if cell.trained is not None]
        if cells:
            found[arm.name] = cells[0]
    return found


def _map(
    results: StudyResults, text: str, trained: Mapping[str, CellResult], planted: bool
) -> tuple[Figure, str]:
    stock = Diagnosis.load(stock_file(results.folder, text))
    limits = results.study.plan.limits

    def view(title: str, cell: CellResult) -> HeadView:
        mass = cell.heads[text].mass()
        entropy = np.array(cell.heads[text].entropy, dtype=np.float64)
        verdicts = classify(mass, entropy, limits, stock.stats.attends)
        sick = int(limits.is_sick(np.nan_to_num(mass)).sum())
        no_intervals = np.zeros(mass.shape, dtype=bool)
        return HeadView(
            f"{title}: {sick} sick",
            mass,
            verdicts,
            no_intervals,
            stock.stats.slopes,
            stock.stats.null_mass,
            limits,
        )

    views = [view("untouched", untouched(results))]
    views += [view(name, cell) for name, cell in list(trained.items())[: _SHOWN - 1]]
    figure = head_map(
        views,
        parse_heads(untouched(results).operated),
        title="Attention on the first token, before and after",
        footnote=_footnote(results, text, planted),
    )
    return figure, (
        "Each cell is one head; the darker, the more of its attention lies on the first token. "
        "Outlined heads are those of the plan. A light cell alone proves nothing: an untrained "
        "head is light as well."
    )


def _mass(
    results: StudyResults, text: str, trained: Mapping[str, CellResult], planted: bool
) -> tuple[Figure, str]:
    stock = untouched(results)
    heads = parse_heads(stock.operated)

    def masses(cell: CellResult) -> np.ndarray:
        mass = cell.heads[text].mass()
        return np.array([mass[head] for head in heads])

    nulls = [c.recovery.null_mass[text] for c in trained.values() if c.recovery is not None]
    null = np.array([np.mean(nulls)] if nulls else [])
    panels = [MassPanel.of("untouched", masses(stock), null)]
    panels += [
        MassPanel.of(name, masses(cell), null) for name, cell in list(trained.items())[:_SHOWN]
    ]
    figure = mass_histogram(
        panels,
        title=f"Mass on the first token of the {len(heads)} planned heads",
        footnote=_footnote(results, text, planted),
    )
    return figure, (
        "Mass of the planned heads. The yellow band is the null: the same heads reinitialised and "
        "not trained, which leave the sick class as well."
    )


def _loss(
    results: StudyResults, text: str, trained: Mapping[str, CellResult], planted: bool
) -> tuple[Figure, str]:
    curves = []
    for name, cell in trained.items():
        if cell.trained is not None:
            tokens, loss = zip(*cell.trained.curve, strict=True)
            curves.append(Curve(name, name, tokens, loss))
    kept = [
        cell.trained.curve[0][1]
        for cell in trained.values()
        if cell.trained is not None
        and results.study.arm(cell.arm).init == "none"
        and results.study.arm(cell.arm).model == "subject"
    ]
    figure = loss_curves(
        curves,
        level=("untouched", kept[0]) if kept else None,
        title="Loss on dev text while the arms are trained",
        footnote=f"{text}, dev split; first seed. {_note(planted)}".strip(),
    )
    return figure, "Every arm trains on the same tokens in the same order."


def _shares(shares: list[Share], results: StudyResults, planted: bool) -> tuple[Figure, str]:
    bars = [
        Bar(
            each.arm,
            each.arm,
            *(np.nan if n is None else n for n in (each.value, each.low, each.high)),
        )
        for each in shares
    ]
    figure = interval_bars(
        bars,
        axis="recovered share of the loss between untouched and ceiling",
        references=((0.0, "untouched"), (1.0, "ceiling")),
        percent=True,
        title="How much of what could be recovered was recovered",
        footnote=f"test split; 95 % intervals over documents. {_note(planted)}".strip(),
    )
    return figure, (
        "Recovered share on held-out text. The ceiling is the healthy twin after its same slices "
        "were trained on the same tokens."
    )


def _decisions(result: StudyResult, planted: bool) -> tuple[Figure, str]:
    bars = [
        Bar(
            f"{each.arm} − {each.against}, {each.text} ({each.outcome})"
            if each.question != "recovers"
            else f"recovers: {each.arm}, {each.text} ({each.outcome})",
            each.arm,
            *(np.nan if n is None else n for n in (each.value, each.low, each.high)),
        )
        for each in result.decisions
    ]
    figure = interval_bars(
        bars,
        axis="difference of loss (nats per token); below 0 is better",
        references=((0.0, "no difference"),),
        title="What the contrasts came to",
        footnote=f"test split; intervals share the study's level. {_note(planted)}".strip(),
    )
    return figure, "Every contrast that was registered, with its interval."


def _footnote(results: StudyResults, text: str, planted: bool) -> str:
    scored = untouched(results).scored[text]
    return (
        f"{printable(results.study.model)} on {printable(scored.corpus)}, {scored.split} split, "
        f"{results.study.windows.statistics} windows of {scored.length} tokens; first seed. "
        f"{_note(planted)}"
    ).strip()


def _note(planted: bool) -> str:
    return PLANTED_SHORT if planted else ""
