"""What the heads do now that an operation would take away, and whether the user agrees."""

from typing import TYPE_CHECKING

from headsurgeon.cli.console import err
from headsurgeon.cli.loading import read_windows
from headsurgeon.cli.progress import busy
from headsurgeon.errors import NeedsConfirmation
from headsurgeon.training import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headsurgeon.planning import Plan

CONFIRM_ABOVE = 0.05
_WINDOWS = 16


def takes_away(plan: "Plan") -> bool:
    """Whether the operation removes what the heads do now; a control that only trains does not."""
    return plan.init != "none" or plan.output_start != "keep_output"


def price(
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
        count=_WINDOWS,
        seed=settings.windows_seed,
        first_token=settings.first_token,
        packing=settings.packing,
    )
    # with them and without; under `mean` also their means
    passes = 2 + (plan.ablation_mode == "mean")
    with busy("measuring what ablating the heads costs", passes * len(windows)) as on_windows:
        cost = ablation_cost(model, windows, mode=plan.ablation_mode, on_windows=on_windows)
        return cost(plan.operated)


def confirm(plan: "Plan", cost: float, yes: bool, otherwise: str) -> None:
    """Says what ablating the heads costs, and asks where it is much.

    Args:
        yes: whether the user has agreed already.
        otherwise: what else could be done, such as a command.

    Raises:
        NeedsConfirmation: more than `CONFIRM_ABOVE`, or no number.
    """
    if not cost <= CONFIRM_ABOVE and not yes:
        raise NeedsConfirmation(_warning(plan, cost, otherwise))
    heads = f"ablating the {len(plan.operated)} heads costs"
    mode = f"({plan.ablation_mode} ablation)"
    err().print(f"{heads} {cost:+.4f} nats per token now {mode}", style="dim")


def _warning(plan: "Plan", cost: float, otherwise: str) -> str:
    return (
        f"these {len(plan.operated)} heads do work: ablating them ({plan.ablation_mode}) costs "
        f"{cost:.4f} nats per token (more than {CONFIRM_ABOVE:g}), which training would first have "
        f"to win back; proceed with --yes, or operate only on sick heads that do none: {otherwise}"
    )
