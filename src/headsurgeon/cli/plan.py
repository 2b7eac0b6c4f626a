"""`headsurgeon plan`: from a diagnosis to an editable file that says which heads, and why."""

from math import inf
from pathlib import Path
from typing import Annotated

import typer

from headsurgeon.cli import option_texts, options
from headsurgeon.cli.console import err, out, show_next
from headsurgeon.cli.examining import diagnosis_file
from headsurgeon.cli.loading import open_model
from headsurgeon.cli.outputs import check_file
from headsurgeon.cli.plan_measurements import (
    check_diagnosed,
    windows_for_costs,
)
from headsurgeon.cli.plan_table import show_plan
from headsurgeon.cli.progress import busy
from headsurgeon.cli.training_options import reading_as
from headsurgeon.errors import CorpusError, OutputError, PlanError
from headsurgeon.records import snake_case

CHOICE = "Which heads"
START = "How they start"
COSTS = "What they cost"


def plan(
    diagnosis: Annotated[
        Path,
        typer.Argument(
            metavar="DIAGNOSIS", help="diagnosis.json, or the folder it is in.", show_default=False
        ),
    ],
    loading: options.FrozenLoading,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The plan, a YAML file.")
    ] = Path("plan.yaml"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a plan that is there already.")
    ] = False,
    rule: Annotated[
        str | None,
        typer.Option(
            help="sick, newly_sick (healthy in --untouched), band, heads, column, idle (sick heads "
            "that do no work), or a control: random, matched (healthy, nearest slopes). By default "
            "sick, or what the options below ask for.",
            rich_help_panel=CHOICE,
            show_default=False,
        ),
    ] = None,
    heads: Annotated[
        str | None,
        typer.Option(
            metavar="L5H14,…",
            help="Exactly these; for rule idle: those it may choose from.",
            rich_help_panel=CHOICE,
            show_default=False,
        ),
    ] = None,
    band: Annotated[
        str | None,
        typer.Option(
            metavar="9-15",
            help="Sick heads among these head indices; healthy ones are watched.",
            rich_help_panel=CHOICE,
            show_default=False,
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="5-22", help="Only these layers.", rich_help_panel=CHOICE, show_default=False
        ),
    ] = None,
    column: Annotated[
        int | None,
        typer.Option(
            metavar="5",
            help="This head index in every layer, sick or not.",
            rich_help_panel=CHOICE,
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="L5H9,…",
            help="Heads to follow and leave alone, besides those that the rule watches.",
            rich_help_panel=CHOICE,
            show_default=False,
        ),
    ] = None,
    untouched: Annotated[
        Path | None,
        typer.Option(
            metavar="DIAGNOSIS",
            help="For rule newly_sick: the diagnosis of the model before any operation.",
            rich_help_panel=CHOICE,
            show_default=False,
        ),
    ] = None,
    max_cost: Annotated[
        float,
        typer.Option(
            metavar="NATS",
            help="For rule idle: what ablating all of them together may cost per token.",
            rich_help_panel=CHOICE,
        ),
    ] = 0.05,
    ablation_mode: Annotated[
        str,
        typer.Option(
            metavar="zero|mean",
            help="How heads are ablated for the costs: their output removed, or replaced by its "
            "average. A zeroed output is what an operation begins with; a sink that adds a "
            "constant costs much less under mean.",
            rich_help_panel=COSTS,
        ),
    ] = "zero",
    init: Annotated[
        str,
        typer.Option(
            help="How Q, K and V start: xavier_uniform_head (the paper's), canonical (recommended: "
            "looks at text first), xavier_normal, model, none (keep the weights), or another of "
            "headsurgeon.starts.INITS.",
            rich_help_panel=START,
        ),
    ] = "xavier_uniform_head",
    output_start: Annotated[
        str,
        typer.Option(
            help="What a head adds at first: zero_output, keep_output, or another of "
            "headsurgeon.starts.OUTPUT_STARTS.",
            rich_help_panel=START,
        ),
    ] = "zero_output",
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=2**63 - 1,
            help="Of the initialisation and of rule random.",
            rich_help_panel=START,
        ),
    ] = 0,
    no_costs: Annotated[
        bool,
        typer.Option(
            "--no-costs",
            help="Do not measure what ablating the heads costs.",
            rich_help_panel=COSTS,
        ),
    ] = False,
    exact_costs: Annotated[
        bool,
        typer.Option(
            "--exact-costs",
            help="Ablate each head by itself, one pass over the text per head, instead of "
            "estimating from gradients what each alone costs.",
            rich_help_panel=COSTS,
        ),
    ] = False,
    cost_count: Annotated[
        int,
        typer.Option(
            metavar="WINDOWS",
            min=1,
            max=2**31 - 1,
            help="Windows of the dev split to measure costs on; estimates are made on as many "
            "others.",
            rich_help_panel=COSTS,
        ),
    ] = 16,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Text to measure costs on; by default that of the diagnosis.",
            rich_help_panel=COSTS,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model, if it is no longer where the diagnosis found it.",
            rich_help_panel=options.MACHINE,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Chooses heads by a rule and writes a plan that you can edit.

    The plan shows what ablating each head costs now, before anything is cut: a sink may be work.
    Costs are measured on the dev split, with the window length, first token and seed of the
    diagnosis.
    """
    from headsurgeon.data import given_file
    from headsurgeon.data.first_token import first_tokens
    from headsurgeon.diagnosis import Diagnosis
    from headsurgeon.evaluation import SCREENING_PASSES, ablation_cost
    from headsurgeon.evaluation.screening import why_not_screened
    from headsurgeon.planning.planning import expected_costs
    from headsurgeon.planning.planning import plan as make_plan

    if corpus is not None:
        given_file(corpus)
    _check_names(init, output_start)
    _check_output(output, overwrite)
    diagnosed = Diagnosis.load(diagnosis_file(diagnosis))
    rule_name = _asked_for(heads, band, column) if rule is None else snake_case(rule)
    asked = {
        "rule": rule_name,
        "heads": None if heads is None else heads.split(","),
        "band": option_texts.first_last(band, "--band"),
        "layers": option_texts.first_last(layers, "--layers"),
        "column": column,
        "watch": () if watch is None else watch.split(","),
        "untouched": None if untouched is None else Diagnosis.load(diagnosis_file(untouched)),
        "max_cost": max_cost,
        "ablation_mode": ablation_mode,
        "init": init,
        "output_start": output_start,
        "seed": seed,
    }
    if ablation_mode not in ("zero", "mean"):
        raise PlanError(f"--ablation-mode: expected zero or mean, got {ablation_mode!r}")
    if not 0.0 <= max_cost < inf:
        raise PlanError(f"--max-cost: expected finite nats from 0 up, got {max_cost}")
    asked_about = len(diagnosed.sick)
    if rule_name != "idle":
        # whatever is wrong with what is asked is known before a model is loaded
        asked_about = len(make_plan(diagnosed, **asked).operated)  # type: ignore[arg-type]
    loaded, tokenizer = open_model(model or diagnosed.stats.provenance.model, loading)
    if model is not None:
        check_diagnosed(diagnosed, loaded, tokenizer, loading.attention)
    if no_costs and rule_name != "idle":
        with busy(f"planning by rule {rule_name}"):
            result = make_plan(diagnosed, model=loaded, **asked)  # type: ignore[arg-type]
    else:
        windows, others = windows_for_costs(
            diagnosed,
            loaded,
            tokenizer,
            corpus,
            cost_count,
            ablation_mode,
            loading.attention,
        )
        unfit = None if exact_costs else why_not_screened(loaded)
        if unfit is not None:
            err().print(f"{unfit}, so each head is ablated by itself", style="dim")
        screened = not exact_costs and unfit is None
        estimates, sets = expected_costs(rule_name, asked_about, estimated=screened)
        # with all heads, under `mean` for their means, and for each set
        passes = 1 + (ablation_mode == "mean") + sets
        to_read = passes * len(windows) + estimates * SCREENING_PASSES * len(others)
        with busy(f"planning by rule {rule_name}", to_read) as on_windows:
            cost = ablation_cost(
                loaded,
                windows,
                estimated_on=others,
                singles=exact_costs,
                mode=ablation_mode,  # type: ignore[arg-type]
                attention=loading.attention,  # type: ignore[arg-type]
                on_windows=on_windows,
            )
            result = make_plan(diagnosed, model=loaded, cost=cost, **asked)  # type: ignore[arg-type]
    result.save(output)
    show_plan(result)
    out().print(f"\nwritten to {output}; edit it as you like", soft_wrap=True)
    source = diagnosed.stats.provenance
    read = corpus or source.corpus
    _, usual = first_tokens(tokenizer, options.Reading().first_token)
    reading = reading_as(source, usual)
    if not _can_be_trained_on(read):
        # of texts that are read whole the length is that of the longest
        read, reading = "SPEC", reading_as(source.replace(length=options.Reading().length), usual)
    following = ("--plan", output, "--corpus", read, *reading, "--output", "runs/first")
    show_next("operate", result.model, *loading.again, *following)


def _can_be_trained_on(corpus: str) -> bool:
    """Whether a diagnosis names a corpus, and not given texts or bare tokens."""
    from headsurgeon.data import given_file

    try:
        return given_file(corpus) is None
    except CorpusError:
        return False


def _asked_for(heads: str | None, band: str | None, column: int | None) -> str:
    asked = {"heads": heads, "band": band, "column": column}
    return next((rule for rule, value in asked.items() if value is not None), "sick")


def _check_names(init: str, output_start: str) -> None:
    from headsurgeon.errors import SettingsError
    from headsurgeon.starts import choose_init, choose_output_start

    faults = []
    for option, choose, name in (
        ("--init", choose_init, init),
        ("--output-start", choose_output_start, output_start),
    ):
        try:
            choose(name)
        except SettingsError as error:
            faults.append(f"{option}: {error}")
    if faults:
        raise SettingsError("; ".join(faults))


def _check_output(output: Path, overwrite: bool) -> None:
    check_file(output, "plan.yaml")
    if output.exists() and not overwrite:
        # it may hold hours of a person's editing
        raise OutputError(f"{output} exists; give another name, or --overwrite to replace it")
