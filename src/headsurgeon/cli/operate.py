"""`headsurgeon operate`: carries out a plan and trains the heads it names, or all from there."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headsurgeon.cli import option_texts, options
from headsurgeon.cli.console import command_line, facts, heading, out
from headsurgeon.cli.further_texts import anchor_windows, probe_windows
from headsurgeon.cli.loading import open_model
from headsurgeon.cli.operate_passes import Repeating, operate_passes
from headsurgeon.cli.operation_cost import confirm, price, takes_away
from headsurgeon.cli.operation_dry_run import show_dry_run
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.page import show_page
from headsurgeon.cli.progress import busy, training_bar
from headsurgeon.cli.tensorboard import Wanted, check_tensorboard, relaying, send_runs
from headsurgeon.cli.training_options import (
    DEFAULT_TOKENS,
    STARTS,
    TRAINING,
    Training,
    check_recipe,
    settings_of,
    show_further,
)
from headsurgeon.errors import SettingsError
from headsurgeon.training import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from headsurgeon.operation import FullLearner, Patient
    from headsurgeon.training import Run, StepEvent


def operate(
    model: options.Model,
    corpora: options.Corpora,
    output: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of the run; a run that was stopped there is resumed.",
            show_default=False,
        ),
    ],
    loading: options.Loading,
    repeating: Repeating,
    plans: Annotated[
        list[Path] | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan written by plan; with --passes one for each pass, or for the first.",
            show_default=False,
        ),
    ] = None,
    weights: options.Weights = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be done and how much memory it would take, and do nothing.",
        ),
    ] = False,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="Operate even where the heads do work that would be lost at first."
        ),
    ] = False,
    whole_model: Annotated[
        bool,
        typer.Option(
            "--whole-model",
            help="Train every weight of the model from where the heads are started, not these "
            "heads alone. For text of all the kinds that the model should stay good at.",
        ),
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            help=f"default ({DEFAULT_TOKENS:,} tokens unless told otherwise), paper: the published "
            "settings, or, for a plan of --init canonical, what won on the twins: recommended, "
            "with --anchor-corpus, or recommended_whole, with --whole-model.",
            rich_help_panel=TRAINING,
        ),
    ] = "default",
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SPEC",
            help="A text whose loss on its dev split is logged at every evaluation; repeatable. "
            "NAME@test=SPEC is of its test split.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    anchor_corpus: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Text for --anchor: its train split, read besides the budget.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    tensorboard: Wanted = False,
    *,
    training: Training,  # type: ignore[valid-type]  # made of the fields of TrainSettings
) -> None:
    """Reinitialises the planned heads and trains them; everything else is frozen unless you say so.

    Trains on the train split and keeps what does best on the dev split: the slices, as a patch, or
    with --whole-model all weights. The test split is left for evaluate, so there is no --split. A
    start that looks at text, such as canonical, looks at the first 32 windows of the training text,
    which --max-tokens pays for. Ctrl-C stops safely; the same command resumes. With --passes,
    operates again and again on what is sick then.
    """
    from headsurgeon.arch import layout_for
    from headsurgeon.models.loading import load_config
    from headsurgeon.operation import open_full
    from headsurgeon.operation import operate as open_up
    from headsurgeon.planning import Plan
    from headsurgeon.starts import looking_at_text
    from headsurgeon.training import calibration_windows

    check_tensorboard(tensorboard)
    settings = settings_of(preset, vars(training))
    corpus = option_texts.mixed_corpus(corpora, weights)
    if repeating.passes is not None:
        if whole_model:
            raise SettingsError(
                "--passes operates again and again on heads alone; leave out --whole-model, or "
                "--passes"
            )
        if preset in STARTS:
            raise SettingsError(
                f"--preset {preset} has a start that looks at text, which only a single "
                "operation can give it: leave out --passes, or take another preset"
            )
        check_recipe(preset, settings, None, anchor_corpus)
        if dry_run:
            raise SettingsError("--dry-run says what one --plan takes; leave out --passes")
        operate_passes(
            model,
            loading,
            plans or (),
            repeating,
            corpus,
            output,
            settings,
            yes=yes,
            probes=probe or (),
            anchor=anchor_corpus,
        )
        if tensorboard:
            send_runs(output, sorted(output.glob("pass-*")))
        return
    plan = _only(plans or (), repeating)
    check_folder(output, "run.json")
    config = load_config(model, trust_remote_code=loading.trust_remote_code)
    layout = layout_for(config)
    planned = Plan.load(plan, layers=layout.layers, heads=layout.heads)
    start = (planned.init, planned.output_start)
    check_recipe(preset, settings, start, anchor_corpus, whole_model)
    if whole_model and loading.dtype == "auto" and settings.masters == "fp32":
        # what is trained are the weights themselves
        loading = replace(loading, dtype="fp32")
    loaded, tokenizer = open_model(model, loading)
    calibration = None
    if looking_at_text(planned.init, planned.output_start):
        with busy(f"reading {corpus}"):
            calibration, settings = calibration_windows(corpus, tokenizer, settings)
    probes = probe_windows(probe or (), tokenizer, settings)
    anchor = anchor_windows(anchor_corpus, tokenizer, settings)
    with busy("checking the plan against the model"):
        patient = open_up(loaded, planned, calibration=calibration)
        patient.revert()
    cost = None
    if not (output / "run.json").exists() and takes_away(planned):
        cost = price(loaded, tokenizer, planned, corpus, settings)
    if dry_run:
        patient.reopen()
        learner = open_full(loaded, planned, start=patient) if whole_model else patient
        show_dry_run(learner, tokenizer, corpus, settings, cost, anchor_corpus)
        return
    if cost is not None:
        again = command_line("-o", plan, "--overwrite")
        confirm(planned, cost, yes, f"headsurgeon plan … --rule idle {again}")
    patient.reopen()
    learner = open_full(loaded, planned, start=patient) if whole_model else patient
    run = _train(
        *(learner, tokenizer, corpus, output, settings, tensorboard),
        probes=probes,
        anchor=anchor,
    )
    _show_run(learner, run)
    show_further(model, loading, run.patch, corpus, settings)
    show_page(output)


def _only(plans: Sequence[Path], repeating: Repeating) -> Path:
    if repeating.rules:
        raise SettingsError(
            "--rule chooses the heads of several --passes; give --passes, or --plan"
        )
    if len(plans) != 1:
        raise SettingsError(
            f"expected one --plan, got {len(plans)}; `headsurgeon plan` writes one, and several "
            "are for as many --passes"
        )
    return plans[0]


def _train(
    learner: "Patient | FullLearner",
    tokenizer: "PreTrainedTokenizerBase",
    corpus: str,
    output: Path,
    settings: TrainSettings,
    tensorboard: bool,
    **further: Any,
) -> "Run":
    from headsurgeon.evaluation.sampling_attention import keep_attention_of_run
    from headsurgeon.training import train, training_windows

    with busy(f"reading {corpus}"):
        windows = training_windows(corpus, tokenizer, settings)
    bar = training_bar(f"training {_what(learner)}")
    with relaying(output, tensorboard) as relay, bar as show:

        def on_step(event: "StepEvent") -> None:
            show(event)
            relay()

        run = train(learner, *windows, output=output, settings=settings, on_step=on_step, **further)
    keep_attention_of_run(learner, tokenizer, windows[1], output)
    return run


def _what(learner: "Patient | FullLearner") -> str:
    """What is trained, in words."""
    from headsurgeon.operation import Patient

    if isinstance(learner, Patient):
        return f"{len(learner.heads)} heads"
    return "the whole model"


def _show_run(learner: "Patient | FullLearner", run: "Run") -> None:
    from headsurgeon.starts import looking_at_text
    from headsurgeon.training import read_log

    losses = read_log(run)
    console = out()
    what = _what(learner)
    console.print(heading(f"{what[0].upper()}{what[1:]} trained on {run.tokens:,} tokens"))
    best = f"{run.best_dev_loss:.4f} at best (step {run.best_step} of {run.steps}"
    kept = (
        ", kept)"
        if run.kept_step == run.best_step
        else f"), {run.kept_dev_loss:.4f} at step {run.kept_step}, kept"
    )
    lines = {
        "loss on dev text": f"{losses[0][1]:.4f} before training, {best}{kept}",
        run.patch.stem: str(run.patch),
        "log": str(run.log),
    }
    if looking := looking_at_text(learner.init, learner.output_start):
        looked = f"{learner.calibration_tokens:,} tokens"
        lines["start"] = f"{' and '.join(looking)} looked at {looked} of the training text before"
    if run.anchor_tokens:
        lines["anchor"] = f"{run.anchor_tokens:,} tokens of other text were read besides"
    if run.snapshots:
        lines["snapshots"] = f"{len(run.snapshots)} in {run.snapshots[0].parent}"
    console.print(facts(lines))
