"""`headsurgeon operate`: carries out a plan and trains the heads it names, and nothing else."""

from collections.abc import Mapping
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from headsurgeon.cli import options
from headsurgeon.cli.console import busy, command_line, err, facts, heading, out, percent, show_next
from headsurgeon.cli.further_texts import anchor_windows, probe_windows
from headsurgeon.cli.loading import open_model, read_windows
from headsurgeon.cli.outputs import check_folder
from headsurgeon.cli.progress import training_bar
from headsurgeon.errors import NeedsConfirmation
from headsurgeon.training import PRESETS, TrainSettings, train_settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.operation import Patient
    from headsurgeon.planning import Plan
    from headsurgeon.training import Run

TRAINING = "Training (by default as --preset says)"
CONFIRM_ABOVE = 0.05
_DEFAULT_TOKENS = 200_000
_PRICE_WINDOWS = 16
_ADAMW_BYTES = 8


def _option(name: str, kind: Any, description: str | None, default: Any) -> Any:
    text = (description or name).replace("[", r"\[")
    shown = "" if default is None else f" Default {default}."
    flags = f"--{name.replace('_', '-')}"
    both = f"{flags}/--no-{name.replace('_', '-')}" if kind is bool else flags
    info = typer.Option(
        both,
        help=f"{text[0].upper()}{text[1:]}.{shown}",
        rich_help_panel=TRAINING,
        show_default=False,
    )
    return Annotated[kind | None, info]


def _plain(annotation: Any) -> Any:
    """The type of a field as the command line reads it: `int | None` is an int, names are text."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) in (Literal, tuple) or len(kinds) > 1:
        return str
    return kinds[0] if kinds else annotation


# an option for every field; None leaves what the preset says
Training: type[Any] = make_dataclass(
    "Training",
    [
        (name, _option(name, _plain(field.annotation), field.description, field.default), None)
        for name, field in TrainSettings.model_fields.items()
    ],
    frozen=True,
)


def operate(
    model: options.Model,
    plan: Annotated[
        Path, typer.Option(metavar="FILE", help="A plan written by plan.", show_default=False)
    ],
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
    preset: Annotated[
        str,
        typer.Option(
            help=f"default ({_DEFAULT_TOKENS:,} tokens unless told otherwise), or paper: the "
            "published settings.",
            rich_help_panel=TRAINING,
        ),
    ] = "default",
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SPEC",
            help="A text whose loss on its dev split is logged at every evaluation; repeatable.",
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
    *,
    training: Training,  # type: ignore[valid-type]  # made of the fields of TrainSettings
) -> None:
    """Reinitialises the planned heads and trains them, everything else frozen.

    Trains on the train split and keeps the slices that do best on the dev split, as a patch; the
    test split is left for evaluate, so there is no --split. Ctrl-C stops safely; the same command
    resumes.
    """
    from headsurgeon.arch import layout_for
    from headsurgeon.models.loading import load_config
    from headsurgeon.operation import operate as open_up
    from headsurgeon.planning import Plan

    settings = _settings(preset, vars(training))
    corpus = options.mixed_corpus(corpora, weights)
    check_folder(output, "run.json")
    config = load_config(model, trust_remote_code=loading.trust_remote_code)
    layout = layout_for(config)
    planned = Plan.load(plan, layers=layout.layers, heads=layout.heads)
    loaded, tokenizer = open_model(model, loading)
    with busy("checking the plan against the model"):
        patient = open_up(loaded, planned)
        patient.revert()
    cost = None
    if not (output / "run.json").exists() and _takes_away(planned):
        cost = _price(loaded, tokenizer, planned, corpus, settings)
    if dry_run:
        patient.reopen()
        _show_dry_run(patient, tokenizer, corpus, settings, cost)
        return
    # a cost that is no number asks too
    if cost is not None and not cost <= CONFIRM_ABOVE and not yes:
        raise NeedsConfirmation(_warning(planned, cost, plan))
    if cost is not None:
        heads = f"ablating the {len(planned.operated)} heads costs"
        mode = f"({planned.ablation_mode} ablation)"
        err().print(f"{heads} {cost:+.4f} nats per token now {mode}", style="dim")
    patient.reopen()
    probes = probe_windows(probe or (), tokenizer, settings)
    anchor = anchor_windows(anchor_corpus, tokenizer, settings)
    run = _train(patient, tokenizer, corpus, output, settings, probes=probes, anchor=anchor)
    _show_run(patient, run, model, corpus, settings)


def _settings(preset: str, changes: Mapping[str, Any]) -> TrainSettings:
    given = {name: value for name, value in changes.items() if value is not None}
    if not {"max_tokens", "epochs"} & (set(given) | set(PRESETS.get(preset, ()))):
        given["max_tokens"] = _DEFAULT_TOKENS
    return train_settings(preset, **given)


def _takes_away(plan: "Plan") -> bool:
    """Whether the operation removes what the heads do now; a control that only trains does not."""
    return plan.init != "none" or plan.output_start != "keep_output"


def _price(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    plan: "Plan",
    corpus: str,
    settings: TrainSettings,
) -> float:
    """What ablating the heads costs: the plan's figure, or measured when heads were added."""
    from headsurgeon.evaluation import ablation_cost

    heads = [head for head in plan.heads if head.role == "operate"]
    if plan.joint_cost is not None and all(head.ablation_cost is not None for head in heads):
        return plan.joint_cost
    windows = read_windows(
        corpus,
        tokenizer,
        split="dev",
        length=settings.length,
        count=_PRICE_WINDOWS,
        seed=settings.windows_seed,
        first_token=settings.first_token,
        packing=settings.packing,
    )
    with busy("measuring what ablating the heads costs"):
        return ablation_cost(model, windows, mode=plan.ablation_mode)(plan.operated)


def _warning(plan: "Plan", cost: float, path: Path) -> str:
    return (
        f"these {len(plan.operated)} heads do work: ablating them ({plan.ablation_mode}) costs "
        f"{cost:.4f} nats per token (more than {CONFIRM_ABOVE:g}), which training would first have "
        "to win back; proceed with --yes, or operate only on sick heads that do none: headsurgeon "
        f"plan … --rule idle {command_line('-o', path, '--overwrite')}"
    )


def _train(
    patient: "Patient",
    tokenizer: "PreTrainedTokenizerBase",
    corpus: str,
    output: Path,
    settings: TrainSettings,
    **further: Any,
) -> "Run":
    from headsurgeon.training import train, training_windows

    with busy(f"reading {corpus}"):
        windows = training_windows(corpus, tokenizer, settings)
    with training_bar(f"training {len(patient.heads)} heads") as on_step:
        return train(
            patient, *windows, output=output, settings=settings, on_step=on_step, **further
        )


def _show_dry_run(
    patient: "Patient",
    tokenizer: "PreTrainedTokenizerBase",
    corpus: str,
    settings: TrainSettings,
    cost: float | None,
) -> None:
    from headsurgeon.training.schedule import last_step, windows_needed
    from headsurgeon.training.snapshots import snapshot_bytes, snapshots_of

    windows = read_windows(
        corpus,
        tokenizer,
        split="train",
        length=settings.length,
        count=windows_needed(settings),
        seed=settings.windows_seed,
        first_token=settings.first_token,
        packing=settings.packing,
    )
    steps = last_step(settings, len(windows))
    size = patient.change().parameters
    every = sum(parameter.numel() for parameter in patient.model.parameters())
    layers = sorted({head.layer for head in patient.heads})
    lines = {
        "heads": f"{len(patient.heads)} in layers {', '.join(map(str, layers))}; layers below "
        f"{layers[0]} take no part in the backward pass",
        "start": f"{patient.init}, {patient.output_start}, seed {patient.seed}",
        "slices": f"{size:,} parameters in {patient.change().tensors} tensors, "
        f"{percent(size / every)} of the model's {every:,}",
        "optimiser": f"{_ADAMW_BYTES * size:,} bytes (two moments of fp32 per slice parameter)",
        "memory": _memory(patient, settings),
        "training": f"{steps} steps of {settings.tokens_per_step:,} tokens, "
        f"{steps * settings.tokens_per_step:,} in all; the corpus gives {len(windows)} windows "
        f"of {windows.length}",
        "learning rate": f"{settings.learning_rate:g}, weight decay {settings.weight_decay:g}",
    }
    if settings.snapshots:
        kept = snapshots_of(Path(), settings, len(windows), steps, size)
        total = snapshot_bytes(settings, len(kept.steps), size)
        lines["snapshots"] = f"at steps {', '.join(map(str, kept.steps))}: {_megabytes(total)}"
    if cost is not None:
        asks = "" if cost <= CONFIRM_ABOVE else "; --yes will be needed"
        lines["ablating costs"] = (
            f"{cost:+.4f} nats per token now ({patient.plan.ablation_mode} ablation){asks}"
        )
    if patient.frozen_key_values:
        lines["frozen K and V"] = ", ".join(map(str, patient.frozen_key_values))
    console = out()
    console.print(heading("dry run: nothing is written"))
    console.print(facts(lines))


def _memory(patient: "Patient", settings: TrainSettings) -> str:
    """The estimated peak and what it is made of, or why there is no estimate."""
    from headsurgeon.errors import OperationError
    from headsurgeon.training.memory import memory_plan

    try:
        with busy("estimating memory"):
            plan = memory_plan(patient, settings)
    except OperationError as error:
        return f"not estimated: {error}"
    return (
        f"estimated peak above the weights {_megabytes(plan.peak)}: training step "
        f"{_megabytes(plan.training)}, evaluation {_megabytes(plan.evaluation)}; the weights take "
        f"{_megabytes(plan.weights)}; what the allocator cannot reuse comes on top"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


def _show_run(
    patient: "Patient", run: "Run", model: str, corpus: str, settings: TrainSettings
) -> None:
    from headsurgeon.training import read_log

    losses = read_log(run)
    console = out()
    console.print(heading(f"{len(patient.heads)} heads trained on {run.tokens:,} tokens"))
    best = f"{run.best_dev_loss:.4f} at best (step {run.best_step} of {run.steps}"
    kept = (
        ", kept)"
        if run.kept_step == run.best_step
        else f"), {run.kept_dev_loss:.4f} at step {run.kept_step}, kept"
    )
    lines = {
        "loss on dev text": f"{losses[0][1]:.4f} before training, {best}{kept}",
        "patch": str(run.patch),
        "log": str(run.log),
    }
    if run.anchor_tokens:
        lines["anchor"] = f"{run.anchor_tokens:,} tokens of other text were read besides"
    if run.snapshots:
        lines["snapshots"] = f"{len(run.snapshots)} in {run.snapshots[0].parent}"
    console.print(facts(lines))
    reading: tuple[object, ...] = ()
    if settings.length != options.Reading().length:
        reading += ("--length", settings.length)
    if settings.first_token != options.Reading().first_token:
        reading += ("--first-token", settings.first_token)
    if settings.packing != options.Reading().packing:
        reading += ("--packing", settings.packing)
    show_next("evaluate", model, "--patch", run.patch, "--corpus", corpus, *reading)
    show_next("merge", model, "--patch", run.patch, "--output", "repaired")
