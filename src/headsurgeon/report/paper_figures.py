"""The paper's seven figures, drawn from any results, as far as these allow."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from headsurgeon.diagnosis.diagnosis import Diagnosis
from headsurgeon.evaluation.redistribution import Redistribution
from headsurgeon.paper.figure_data import READ_OFF, Size
from headsurgeon.paper.numbers import SOURCE
from headsurgeon.printable import printable
from headsurgeon.report import published
from headsurgeon.report.change_figures import ChangePanel, change_map, watched_map
from headsurgeon.report.comparison import model_maps
from headsurgeon.report.data import HeadView
from headsurgeon.report.dynamics_figures import column_lines, sweep_figure
from headsurgeon.report.head_map_figure import head_map
from headsurgeon.report.logged_view import mass_view
from headsurgeon.report.mass_figure import MassPanel, mass_histogram
from headsurgeon.report.material import Material

# as the paper's figure 1
BINS = 50
# maps beside each other
MOST_RUNS = 3


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure, the name of its file, and its caption."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Lacking:
    """Why a figure cannot be drawn, in words."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class Wanted:
    """What figures are drawn of, and what has to be said with it.

    Attributes:
        material: the results.
        remarks: by model, what every caption must say of it, such as that it was planted.
        sizes: by model, which BLOOM it is, where the paper's values are to be laid under.
    """

    material: Material
    remarks: Mapping[str, str]
    sizes: Mapping[str, Size]

    def footnote(self, *models: str) -> str:
        """What every figure of these models must say."""
        said = [remark for model in dict.fromkeys(models) if (remark := self.remarks.get(model))]
        return " ".join(dict.fromkeys(said))

    def caption(self, words: str, *models: str, read_off: bool = False) -> str:
        """A caption: what is shown, of what, and what was read off."""
        names = ", ".join(model for model in dict.fromkeys(models) if model)
        note = f"Published values were {READ_OFF}s ({SOURCE}), not released by it."
        parts = (words, f"Model: {names}." if names else "", self.footnote(*models))
        return printable(" ".join(part for part in (*parts, note if read_off else "") if part))

    def operated_as_published(self, change: Redistribution) -> bool:
        """Whether the paper's operations can be laid under those of a run: it is of BLOOM-1b7."""
        return self.sizes.get(change.model) == published.OPERATED_MODEL


Draw = Callable[[Wanted], "Iterator[Drawing | Lacking]"]


def paper_figures(wanted: Wanted) -> "list[Drawing | Lacking]":
    """All seven in the paper's order, and the head map; those of single runs once for each."""
    drawing: tuple[Draw, ...] = (
        *(_bimodal, _cross_scale, _three_way, _two_phenomena),
        *(_sub_epoch, _frozen_drift, _column_drift, _before_and_after),
    )
    return [each for draw in drawing for each in draw(wanted)]


def _bimodal(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name, found = "bimodal", wanted.material
    panels, models = [], []
    thresholds = found.diagnoses[0].thresholds if found.diagnoses else None
    for each in found.diagnoses:
        if each.thresholds != thresholds:
            continue
        model = each.stats.provenance.model
        size, stats = wanted.sizes.get(model), each.stats
        under = None if size is None else published.masses(size, BINS)
        panels.append(MassPanel.of(_reading(each), stats.first_token_mass, stats.null_mass, under))
        models.append(model)
    if not panels:
        # a run's log has the untouched model, too
        for change in found.changes[:1]:
            label = f"{printable(change.model)}, untouched, as {change.run} logged it"
            panels.append(MassPanel.of(label, change.mass_before))
            models.append(change.model)
    if not panels:
        yield Lacking(name, "it needs a diagnosis, or a run that measured heads")
        return
    read_off = any(len(panel.published) for panel in panels)
    words = (
        "How the mass on the first token is spread over all heads; blue: not sick, orange: sick; "
        "yellow: the range of untrained heads." + (_BLACK if read_off else "")
    )
    figure = mass_histogram(
        panels,
        **({} if thresholds is None else {"thresholds": thresholds}),
        bins=BINS,
        title="Mass on the first token, all heads",
        footnote=_below(wanted, models, f"Black line: {READ_OFF}." if read_off else ""),
    )
    yield Drawing(name, figure, wanted.caption(words, *models, read_off=read_off))


def _cross_scale(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name, diagnoses = "cross-scale", wanted.material.diagnoses
    if not diagnoses:
        yield Lacking(name, "it needs a diagnosis of each model, as diagnose MODEL MODEL writes")
        return
    models = [each.stats.provenance.model for each in diagnoses]
    sizes = dict.fromkeys(size for model in models if (size := wanted.sizes.get(model)))
    views = [
        HeadView.of(
            f"{_reading(each)}\n{len(each.sick)} of {each.heads} sick",
            *(each.stats, each.verdicts, each.borderline, each.thresholds),
        )
        for each in diagnoses
    ]
    views += [published.mass_view(size) for size in sizes]
    figure = model_maps(
        views,
        title="Attention on the first token, by layer and head",
        footnote=_below(wanted, models),
    )
    words = (
        "Mass on the first token of every head, one panel per text, layer 0 at the bottom; a "
        "single model is no comparison of scales."
        if len(set(models)) == 1
        else "Mass on the first token of every head, one panel per model, layer 0 at the bottom."
    )
    yield Drawing(name, figure, wanted.caption(words, *models, read_off=bool(sizes)))


def _three_way(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name, changes = "three-way", wanted.material.changes
    if not changes:
        yield Lacking(name, _NO_HEADS)
        return
    shown = _alike(changes)[:MOST_RUNS]
    under = wanted.operated_as_published(shown[0])
    models = [each.model for each in shown]
    figure = change_map(
        [ChangePanel.of(each, remark=_loss(wanted, each, each.steps[-1])) for each in shown],
        [published.changes(run) for run in published.STAGES] if under else (),
        footnote=_below(wanted, models),
    )
    words = (
        f"Signed change of mass on the first token at the end of {_list(shown)}, against the "
        "untouched model. The line goes around the heads that were operated on or watched."
    )
    yield Drawing(name, figure, wanted.caption(words, *models, read_off=under))


def _two_phenomena(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name, changes = "two-phenomena", wanted.material.changes
    if not changes:
        yield Lacking(name, _NO_HEADS)
        return
    first, *others = _alike(changes)
    pair = [(other, sorted(set(first.steps) & set(other.steps) - {0})) for other in others]
    matched = [(other, steps[-1]) for other, steps in pair if steps]
    trained = [step for step in first.steps if step > 0]
    if matched:
        second, step = matched[0]
        shown, when = [(first, step), (second, step)], f"after the same {step} steps"
    elif len(trained) > 1:
        shown, when = [(first, trained[0]), (first, trained[-1])], "early and at the end"
    else:
        yield Lacking(
            name, "it needs two runs that measured heads at one step, or a run that did so twice"
        )
        return
    under = wanted.operated_as_published(first)
    models = [each.model for each, _ in shown]
    figure = change_map(
        [ChangePanel.of(each, step, remark=_loss(wanted, each, step)) for each, step in shown],
        [published.changes(run) for run in ("curated", "c4")] if under else (),
        title="Two phenomena: what the operation moves, and what the text moves",
        footnote=_below(wanted, models),
    )
    words = f"Signed change of mass of {_list([each for each, _ in shown])}, {when}."
    yield Drawing(name, figure, wanted.caption(words, *models, read_off=under))


def _sub_epoch(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name, sweeps = "sub-epoch", wanted.material.losses
    if not sweeps:
        yield Lacking(name, "it needs a run")
    for sweep in sweeps:
        under = wanted.sizes.get(sweep.model) == published.OPERATED_MODEL
        figure = sweep_figure(
            sweep,
            published=published.losses() if under else None,
            footnote=_below(
                wanted,
                [sweep.model],
                f"Dotted: {READ_OFF} 5, on 8 short texts, of 126 heads." if under else "",
            ),
        )
        words = (
            f"Loss of {sweep.run} after every evaluated step; the dot is the minimum on dev text, "
            "which chose the step and so flatters it."
        )
        yield Drawing(
            _named(name, sweep.run, len(sweeps)),
            figure,
            wanted.caption(words, sweep.model, read_off=under),
        )


def _frozen_drift(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name = "frozen-drift"
    watching = [each for each in wanted.material.changes if each.mask("watched").any()]
    if not watching:
        yield Lacking(name, _NOT_WATCHED if wanted.material.changes else _NO_HEADS)
    for change in watching:
        under = wanted.operated_as_published(change)
        figure = watched_map(
            change,
            published=published.watched() if under else None,
            footnote=_below(wanted, [change.model]),
        )
        words = (
            f"Heads between the operated ones that {change.run} left frozen and watched: signed "
            f"change of mass at step {change.steps[-1]}. R: operated on."
        )
        yield Drawing(
            _named(name, change.run, len(watching)),
            figure,
            wanted.caption(words, change.model, read_off=under),
        )


def _column_drift(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name = "column-drift"
    changes = [each for each in wanted.material.changes if max(each.steps) > 0]
    if not changes:
        yield Lacking(name, _NO_HEADS)
    for change in changes:
        watched = bool(change.mask("watched").any())
        if not watched and not change.mask("outside").any():
            yield Lacking(_named(name, change.run, len(changes)), "every head was operated on")
            continue
        points = published.columns(change) if wanted.operated_as_published(change) else {}
        under = watched and bool(points)
        figure = column_lines(
            change,
            "watched" if watched else "outside",
            published=points if under else None,
            footnote=_below(wanted, [change.model], f"Dotted: {READ_OFF} S2." if under else ""),
        )
        words = (
            f"Mean |change of mass| of the {'watched' if watched else 'untouched'} heads of "
            f"{change.run} by head index over time"
            + ("." if watched else "; no head was watched, so these are the heads outside.")
        )
        yield Drawing(
            _named(name, change.run, len(changes)),
            figure,
            wanted.caption(words, change.model, read_off=under),
        )


def _before_and_after(wanted: Wanted) -> "Iterator[Drawing | Lacking]":
    name, changes = "head-map", wanted.material.changes
    if not changes:
        yield Lacking(name, _NO_HEADS)
        return
    shown = _alike(changes)[: MOST_RUNS - 1]
    views = [mass_view("untouched", shown[0], shown[0].mass_before)]
    views += [
        mass_view(f"{each.run}, step {each.steps[-1]}", each, each.mass[-1]) for each in shown
    ]
    models = [each.model for each in shown]
    figure = head_map(
        views,
        shown[0].operated,
        title="Attention on the first token, before and after",
        footnote=_below(wanted, models),
    )
    words = (
        f"Mass on the first token before and at the end of {_list(shown)}; outlined: operated on. "
        "A light cell alone proves nothing: an untrained head is light, too."
    )
    yield Drawing(name, figure, wanted.caption(words, *models))


_BLACK = f" Black line: {READ_OFF}."
_NO_HEADS = "it needs a run that measured heads while it trained (statistics_windows above 0)"
_NOT_WATCHED = "no head was watched: name heads to leave frozen in the plan (plan --watch)"


def _named(name: str, run: str, count: int) -> str:
    """The name of a figure's file; of several runs each has its own."""
    return name if count == 1 else f"{name}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', run)}"


def _reading(found: Diagnosis) -> str:
    source = found.stats.provenance
    return f"{printable(source.model)} on {printable(source.corpus)}"


def _alike(changes: tuple[Redistribution, ...]) -> list[Redistribution]:
    """Those of the first run's model; others, such as a healthy twin, say nothing beside it."""
    first = changes[0]
    return [
        each
        for each in changes
        if (each.model, each.mass_before.shape) == (first.model, first.mass_before.shape)
    ]


def _below(wanted: Wanted, models: list[str], *said: str) -> str:
    return "\n".join(part for part in (*said, wanted.footnote(*models)) if part)


def _list(changes: list[Redistribution]) -> str:
    return ", ".join(dict.fromkeys(each.run for each in changes))


def _loss(wanted: Wanted, change: Redistribution, step: int) -> str:
    """The loss on dev text at a step, beside the untouched model's."""
    for sweep in wanted.material.losses:
        if sweep.run == change.run and step in sweep.steps:
            loss = float(sweep.dev.loss[sweep.steps.index(step)])
            before = sweep.dev.untouched
            said = f"dev loss {loss:.3f}"
            return said if np.isnan(before) else f"{said} (untouched {before:.3f})"
    return ""
