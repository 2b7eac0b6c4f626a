"""The page of a sequence of passes: each against the untouched model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headsurgeon.models.planted import is_planted
from headsurgeon.passes.repeating import passes_options
from headsurgeon.passes.result import PASSES, Pass, Passes
from headsurgeon.report.data import KeyFigure, Page, Section, Table
from headsurgeon.report.run_heads import heads_of_run
from headsurgeon.report.run_page import facts_of, operate_command, run_page
from headsurgeon.report.wording import NOT_PLANTED, PLANTED, estimated
from headsurgeon.training.run_file import read_run_file


def page(folder: Path) -> Page:
    """The page of what `operate --passes` wrote, finished or not."""
    found = Passes.load(folder / PASSES)
    names = [f"pass {each.number}" for each in found.passes]
    places = [folder / each.folder for each in found.passes]
    heads = [heads_of_run(place, name) for place, name in zip(places, names, strict=True)]
    runs = [run_page(place, name) for place, name in zip(places, names, strict=True)]
    return Page(
        title=f"{len(found.passes)} passes: {found.model}",
        lead=tuple(_said(each, found) for each in found.passes)
        + ((f"It ended because {found.ended}.",) if found.ended else ("It has NOT ended yet.",)),
        notice=PLANTED if is_planted(found.model) else NOT_PLANTED,
        figures=(
            KeyFigure(str(len(found.sick)), "sick heads before"),
            *(
                KeyFigure(str(len(each.sick)), f"sick after pass {each.number}")
                for each in found.passes[-2:]
            ),
            KeyFigure(f"{sum(each.tokens for each in found.passes):,}", "tokens trained"),
        ),
        heads=tuple(each for each in heads if each is not None),
        sections=(
            Section("Passes", tables=(_table(found), _transitions(found))),
            *(
                replace(part, title=f"{name}: {part.title}", folded=True)
                for name, run in zip(names, runs, strict=True)
                for part in run.sections
            ),
        ),
        facts=facts_of(read_run_file(places[-1])) if places else {},
        command=_command(found, places),
    )


def _command(found: Passes, places: Sequence[Path]) -> str:
    """What makes the passes again; empty where no command does the same."""
    if not places:
        return ""
    first = read_run_file(places[0])
    options = passes_options(found, first.identity)
    return "" if options is None else operate_command(first, options)


def _said(each: Pass, found: Passes) -> str:
    text = (
        f"Pass {each.number} operated on {len(each.operated)} heads ({each.rule}): the loss on dev "
        f"text went from {each.dev_loss_before:.4f} to {each.dev_loss:.4f} nats per token, and "
        f"{len(each.sick)} heads are sick ({len(found.sick)} before any pass)"
    )
    if each.recovery is None:
        return f"{text}; whether its heads do work was not measured."
    return f"{text}; {len(each.recovery.recovered)} of its heads recovered by function."


def _table(found: Passes) -> Table:
    rows = tuple(
        (
            str(each.number),
            each.rule,
            str(len(each.operated)),
            f"{each.tokens:,}",
            f"{each.dev_loss:.4f}",
            "–" if each.test_change is None else estimated(each.test_change),
            str(len(each.sick)),
            "–" if each.recovery is None else str(len(each.recovery.recovered)),
        )
        for each in found.passes
    )
    columns = (
        "pass",
        "rule",
        "operated",
        "tokens",
        "dev loss",
        "test − untouched",
        "sick",
        "recovered",
    )
    return Table("passes", "Each pass, against the untouched model", columns, rows)


def _transitions(found: Passes) -> Table:
    rows = tuple(
        (
            str(each.number),
            zone,
            str(change.heads),
            str(change.can_change),
            str(change.became_sick),
            str(change.became_healthy),
            str(change.still_sick),
        )
        for each in found.passes
        for zone, change in each.zones.items()
        if change.heads
    )
    columns = ("pass", "zone", "heads", "can change", "fell sick", "woke", "still sick")
    return Table("transitions", "Healthy ↔ sick, against the untouched model", columns, rows)
