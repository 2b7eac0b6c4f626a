"""The demo's figures; where the collapse was planted, each says so."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from headsurgeon.demo.arms import Outcome
from headsurgeon.demo.examination import Case
from headsurgeon.demo.judgement import Judgement
from headsurgeon.demo.material import OTHER, TEST
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.demo.wording import PLANTED_SHORT
from headsurgeon.diagnosis import diagnose
from headsurgeon.heads import SICK, HeadId, HeadStats
from headsurgeon.printable import printable
from headsurgeon.report import (
    Bar,
    Curve,
    HeadView,
    Picture,
    head_map,
    interval_bars,
    loss_curves,
    mass_histogram,
    write_png,
)

ORDER = ("surgery", "control", "ceiling")
NAMES = ("head_map", "mass", "loss", "result")


def draw(
    folder: Path,
    case: Case,
    outcomes: Mapping[str, Outcome],
    judgement: Judgement,
    settings: DemoSettings,
) -> dict[str, Picture]:
    """Draws every figure, writes it to `folder` as a PNG, and returns them for the page."""
    drawn = {
        "head_map": _map(case, outcomes, settings),
        "mass": _mass(case, outcomes, judgement, settings),
        "loss": _loss(outcomes, settings),
        "result": _shares(judgement, settings)
        if judgement.shares
        else _changes(judgement, settings),
    }
    return {
        name: Picture(write_png(figure, folder / f"{name}.png"), caption)
        for name, (figure, caption) in drawn.items()
    }


def _map(case: Case, outcomes: Mapping[str, Outcome], settings: DemoSettings) -> tuple[Figure, str]:
    kind = f", {settings.corpus_kind}" if settings.corpus_kind else ""
    views = [
        _view(f"untouched{kind}", case.stats, settings),
        _view(f"after surgery, merged{kind}", outcomes["surgery"].stats, settings),
    ]
    footnote = _footnote(case.stats, settings)
    if settings.other_kind:
        other = case.conditions[OTHER].stats
        views.insert(0, _view(f"untouched, {settings.other_kind}", other, settings))
        footnote = f"{footnote} {settings.other_kind.capitalize()}: {settings.other_corpus}."
    figure = head_map(
        views,
        case.plan.operated,
        title="Attention on the first token, before and after surgery",
        footnote=footnote,
    )
    caption = (
        "Each cell is one head; the darker, the more of its attention lies on the first token. "
        "Outlined heads were operated on. A light cell alone proves nothing: an untrained head is "
        "light as well."
    )
    return figure, _caption(caption, settings)


def _mass(
    case: Case,
    outcomes: Mapping[str, Outcome],
    judgement: Judgement,
    settings: DemoSettings,
) -> tuple[Figure, str]:
    heads = case.plan.operated
    panels = [("untouched", "untouched", _of(case.stats, heads))]
    for arm, label in (("surgery", "after surgery"), ("control", "after the control's training")):
        panels.append((label, arm, _of(outcomes[arm].stats, heads)))
    figure = mass_histogram(
        panels,
        judgement.recovery.null[0],
        title=f"Mass on the first token of the {len(heads)} operated heads",
        footnote=_footnote(case.stats, settings),
    )
    caption = (
        "Mass of the operated heads. The yellow band is the null: the same heads reinitialised and "
        "not trained, which leave the sick class as well."
    )
    return figure, _caption(caption, settings)


def _loss(outcomes: Mapping[str, Outcome], settings: DemoSettings) -> tuple[Figure, str]:
    curves = [
        Curve(arm, arm, outcomes[arm].curve_tokens, outcomes[arm].curve_loss)
        for arm in ORDER
        if arm in outcomes
    ]
    figure = loss_curves(
        curves,
        level=("untouched", outcomes["control"].curve_loss[0]),
        title="Loss on dev text while the slices are trained",
        footnote=f"{settings.corpus}, dev split. {_planted(settings)}".strip(),
    )
    caption = (
        "Every arm trains the same slices on the same tokens in the same order. Surgery starts "
        "where ablating the heads leaves the model."
    )
    return figure, _caption(caption, settings)


def _shares(judgement: Judgement, settings: DemoSettings) -> tuple[Figure, str]:
    bars = [
        Bar(arm, arm, found.value, found.low, found.high) for arm, found in judgement.shares.items()
    ]
    figure = interval_bars(
        bars,
        axis="recovered share of the loss between untouched and ceiling",
        references=((0.0, "untouched"), (1.0, "ceiling")),
        percent=True,
        title="How much of what could be recovered was recovered",
        footnote=f"{settings.corpus}, test split; 95 % intervals. {_planted(settings)}".strip(),
    )
    caption = (
        "Recovered share on held-out text. The ceiling is the healthy twin after its same slices "
        "were trained on the same tokens."
    )
    return figure, _caption(caption, settings)


def _changes(judgement: Judgement, settings: DemoSettings) -> tuple[Figure, str]:
    bars = []
    for name, kind in ((TEST, settings.corpus_kind), (OTHER, settings.other_kind)):
        for arm in ("surgery", "control"):
            change = judgement.changes[name][arm]
            label = f"{arm}, {kind or name}"
            bars.append(Bar(label, arm, change.value, change.low, change.high))
    figure = interval_bars(
        bars,
        axis="change of loss against the untouched model (nats per token)",
        references=((0.0, "untouched"),),
        title="What training the slices brought",
        footnote=(
            f"{settings.text}, which the slices were trained on, and {settings.other_text}, which "
            f"they were not; test split; 95 % intervals. {_planted(settings)}"
        ).strip(),
    )
    return figure, _caption("Change of loss on held-out text; below 0 is better.", settings)


def _view(title: str, stats: HeadStats, settings: DemoSettings) -> HeadView:
    found = diagnose(stats, seed=settings.seed)
    sick = int(np.isin(found.verdicts, sorted(SICK)).sum())
    return HeadView.of(f"{title}: {sick} sick", stats, found.verdicts, found.borderline)


def _of(stats: HeadStats, heads: tuple[HeadId, ...]) -> Float[np.ndarray, " operated"]:
    return np.array([stats.first_token_mass[head] for head in heads])


def _footnote(stats: HeadStats, settings: DemoSettings) -> str:
    source = stats.provenance
    text = (
        f"{printable(source.model)} on {printable(source.corpus)}, {source.split} split, "
        f"{source.count} windows of {source.length} tokens. {_planted(settings)}"
    )
    return text.strip()


def _planted(settings: DemoSettings) -> str:
    return PLANTED_SHORT if settings.planted else ""


def _caption(text: str, settings: DemoSettings) -> str:
    return f"{text} {_planted(settings)}".strip()
