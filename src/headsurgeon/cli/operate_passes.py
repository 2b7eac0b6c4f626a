"""`headsurgeon operate --passes`: operates again and again, on what is sick then."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headsurgeon.cli import options
from headsurgeon.cli.further_texts import anchor_windows, probe_windows
from headsurgeon.cli.loading import open_model
from headsurgeon.cli.operation_cost import confirm, price, takes_away
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.page import show_page
from headsurgeon.cli.passes_summary import show_pass, show_passes
from headsurgeon.cli.progress import add_run, busy, new_bar, show_step
from headsurgeon.cli.training_options import show_further
from headsurgeon.errors import SettingsError
from headsurgeon.training import TrainSettings

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.passes import Pass
    from headsurgeon.planning import Plan
    from headsurgeon.training import StepEvent

PASSES = "Several passes"


@dataclass(frozen=True)
class Repeating:
    """Options of a sequence of passes: a group, see `signature.grouped`."""

    passes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=1000,
            help="Operate at most so often: each pass on what the last left, until no head is sick "
            "or the loss on dev text stops falling.",
            rich_help_panel=PASSES,
            show_default=False,
        ),
    ] = None
    rules: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            metavar="RULE",
            help="What the passes after the plans operate on, one for each, the last for all that "
            "are left: sick, newly_sick (healthy in the untouched model), idle, random, matched. "
            "By default the rule of the last plan, or sick.",
            rich_help_panel=PASSES,
            show_default=False,
        ),
    ] = None
    least_gain: Annotated[
        float,
        typer.Option(
            metavar="NATS",
            min=-1e9,
            max=1e9,
            help="A rule makes another pass only if the last one lowered the loss on dev text by "
            "more than this; below 0 it may rise.",
            rich_help_panel=PASSES,
        ),
    ] = 0.0
    recovery: Annotated[
        bool,
        typer.Option(
            "--recovery/--no-recovery",
            help="Measure on the test split after each pass whether its heads do work; takes some "
            "ten measurements.",
            rich_help_panel=PASSES,
        ),
    ] = True


def operate_passes(
    model: str,
    loading: options.Loading,
    plans: Sequence[Path],
    repeating: Repeating,
    corpus: str,
    output: Path,
    settings: TrainSettings,
    *,
    yes: bool,
    probes: Sequence[str],
    anchor: str | None,
) -> None:
    """Runs or resumes the sequence and prints its result; see `run_passes`."""
    from headsurgeon.data import windows
    from headsurgeon.diagnosis import Thresholds
    from headsurgeon.passes import run_passes
    from headsurgeon.passes.repeating import WINDOWS
    from headsurgeon.passes.result import PASSES as MARKER
    from headsurgeon.passes.rules import rules_of
    from headsurgeon.planning import Plan
    from headsurgeon.starts import looking_at_text
    from headsurgeon.training import training_windows

    check_folder(output, MARKER)
    given = [Plan.load(path) for path in plans]
    looking = [name for plan in given for name in looking_at_text(plan.init, plan.output_start)]
    if looking:
        raise SettingsError(
            f"{looking[0]} looks at text before it chooses weights, which only a single operation "
            "can give it: leave out --passes, or plan with another --init"
        )
    limits = {plan.limits for plan in given}
    if len(limits) > 1:
        raise SettingsError("the plans judge heads by different thresholds; make them alike")
    rules = [*given, *(repeating.rules or (() if given else ("sick",)))]
    count = repeating.passes or 1
    # whatever is wrong with what is asked is known before a model is loaded
    rules_of(rules, count)
    loaded, tokenizer = open_model(model, loading)
    with busy(f"reading {corpus}"):
        train, dev = training_windows(corpus, tokenizer, settings)
        cut = partial(
            windows,
            corpus,
            tokenizer,
            length=settings.length,
            count=WINDOWS,
            first_token=settings.first_token,
            packing=settings.packing,
        )
        diagnosed = cut(split="dev")
        tested = cut(split="test") if repeating.recovery else None
    with _Telling(tokenizer, corpus, settings, yes).shown() as observer:
        result = run_passes(
            loaded,
            train,
            dev,
            output=output,
            settings=settings,
            passes=count,
            rules=rules,
            diagnosed=diagnosed,
            tested=tested,
            thresholds=next(iter(limits), Thresholds()),
            least_gain=repeating.least_gain,
            probes=probe_windows(probes, tokenizer, settings),
            anchor=anchor_windows(anchor, tokenizer, settings),
            observer=observer,
        )
    for each in result.passes:
        show_pass(each, result)
    show_passes(result, output)
    if result.passes:
        show_page(output)
    if result.patch is not None:
        show_further(model, loading, output / result.patch, corpus, settings)


class _Telling:
    """Moves a bar while a pass trains, and asks before heads that do work are cut."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        corpus: str,
        settings: TrainSettings,
        yes: bool,
    ) -> None:
        self.tokenizer = tokenizer
        self.corpus = corpus
        self.settings = settings
        self.yes = yes
        self.now = ExitStack()
        self.bar: tuple[Progress, TaskID] | None = None
        self.number = 0

    @contextmanager
    def shown(self) -> "Iterator[_Telling]":
        """Whatever is on the screen goes at the end, also on error."""
        try:
            yield self
        finally:
            self._end()

    def measuring(self, what: str) -> None:
        """A line that says so."""
        self._end()
        self.now.enter_context(busy(f"measuring {what}"))

    def planned(self, number: int, plan: "Plan", model: "PreTrainedModel") -> None:
        """Asks, unless nothing is lost or the user has agreed."""
        self._end()
        self.number = number
        if takes_away(plan):
            cost = price(model, self.tokenizer, plan, self.corpus, self.settings)
            confirm(plan, cost, self.yes, "--rule idle")

    def stepped(self, event: "StepEvent") -> None:
        """The bar of the pass."""
        if self.bar is None:
            self._end()
            progress = self.now.enter_context(new_bar())
            name = f"pass {self.number}" if self.number else "training"
            self.bar = progress, add_run(progress, name)
        show_step(*self.bar, event)

    def finished(self, latest: "Pass") -> None:
        """Nothing more of it on the screen; it is shown with the others."""
        self._end()
        self.number = latest.number + 1

    def _end(self) -> None:
        self.now.close()
        self.now, self.bar = ExitStack(), None
