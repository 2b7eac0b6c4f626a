"""What an operation would do and take, without doing it."""

from pathlib import Path
from typing import TYPE_CHECKING

from headsurgeon.cli.console import facts, heading, out, percent
from headsurgeon.cli.loading import read_windows
from headsurgeon.cli.operation_cost import CONFIRM_ABOVE
from headsurgeon.cli.progress import busy
from headsurgeon.training import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from headsurgeon.operation import FullLearner, Patient


def show_dry_run(
    learner: "Patient | FullLearner",
    tokenizer: "PreTrainedTokenizerBase",
    corpus: str,
    settings: TrainSettings,
    cost: float | None,
    anchor: str | None,
) -> None:
    """Prints heads, sizes, memory and steps.

    Args:
        cost: what ablating the heads costs, nats per token, if known.
        anchor: SPEC of the text of the anchor, if there is one.
    """
    from headsurgeon.training.optimiser import moment_bytes
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
    sizes = [values.numel() for values in learner.trainable().values()]
    size = sum(sizes)
    lines = {
        "heads": _heads(learner),
        "start": _start(learner),
        **_trained(learner, size, len(sizes)),
        "optimiser": f"{moment_bytes(learner, settings):,} bytes ({settings.optimizer}, moments in "
        f"{settings.masters})",
        "memory": _memory(learner, settings),
        "training": f"{steps} step{'' if steps == 1 else 's'} of {settings.tokens_per_step:,} "
        f"tokens, {steps * settings.tokens_per_step:,} in all; the corpus gives "
        f"{len(windows)} windows of {windows.length}",
        "learning rate": f"{settings.learning_rate:g}, weight decay {settings.weight_decay:g}",
    }
    if settings.heads_rate != 1.0:
        lines["learning rate"] += f"; these heads at {settings.heads_rate:g} times the rate"
    if anchor is not None:
        beside = settings.anchor_tokens_per_step
        lines["anchor"] = (
            f"weight {settings.anchor:g}; {beside:,} tokens of {anchor} in each step besides, "
            f"{steps * beside:,} in all"
        )
    if settings.snapshots:
        kept = snapshots_of(Path(), settings, len(windows), steps, size)
        total = snapshot_bytes(settings, len(kept.steps), size)
        lines["snapshots"] = f"at steps {', '.join(map(str, kept.steps))}: {_megabytes(total)}"
    if cost is not None:
        asks = "" if cost <= CONFIRM_ABOVE else "; --yes will be needed"
        lines["ablating costs"] = (
            f"{cost:+.4f} nats per token now ({learner.plan.ablation_mode} ablation){asks}"
        )
    if learner.frozen_key_values:
        lines["frozen K and V"] = ", ".join(map(str, learner.frozen_key_values))
    console = out()
    console.print(heading("dry run: nothing is written"))
    console.print(facts(lines))


def _heads(learner: "Patient | FullLearner") -> str:
    from headsurgeon.operation import Patient

    layers = sorted({head.layer for head in learner.heads})
    said = f"{len(learner.heads)} in layers {', '.join(map(str, layers))}"
    if not isinstance(learner, Patient):
        return said
    return f"{said}; layers below {layers[0]} take no part in the backward pass"


def _trained(learner: "Patient | FullLearner", size: int, tensors: int) -> dict[str, str]:
    from headsurgeon.operation import Patient

    if not isinstance(learner, Patient):
        return {"trained": f"the whole model, {size:,} parameters in {tensors} tensors"}
    # while it is operated on, the slices are parameters of it, too
    every = sum(parameter.numel() for parameter in learner.model.parameters()) - size
    share = f"{percent(size / every)} of the model's {every:,}"
    return {"slices": f"{size:,} parameters in {tensors} tensors, {share}"}


def _start(learner: "Patient | FullLearner") -> str:
    start = f"{learner.init}, {learner.output_start}, seed {learner.seed}"
    looked = learner.calibration_tokens
    return f"{start}; looks at {looked:,} tokens of the training text" if looked else start


def _memory(learner: "Patient | FullLearner", settings: TrainSettings) -> str:
    """The estimated peak and what it is made of, or why there is no estimate."""
    from headsurgeon.errors import OperationError
    from headsurgeon.training.memory import memory_plan

    try:
        with busy("estimating memory"):
            plan = memory_plan(learner, settings)
    except OperationError as error:
        return f"not estimated: {error}"
    return (
        f"estimated peak above the weights {_megabytes(plan.peak)}: training step "
        f"{_megabytes(plan.training)}, evaluation {_megabytes(plan.evaluation)}; the weights take "
        f"{_megabytes(plan.weights)}; what the allocator cannot reuse comes on top"
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
