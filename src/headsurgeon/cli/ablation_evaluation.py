"""What ablating the heads of a plan costs, each alone and all together."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from headsurgeon.cli.console import busy, heading, nats, out, table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from headsurgeon.data import Texts, Windows
    from headsurgeon.evaluation import Ablation
    from headsurgeon.planning import Plan

_SHOWN = 20


def evaluate_ablation(
    model: "PreTrainedModel",
    plan: "Plan",
    windows: "Windows | Texts",
    batch_size: int | None,
    attention: Any,
    shows: list[Callable[[], None]],
) -> dict[str, Any]:
    """What the file of results says of it; `shows`, what is to be printed later, grows by it."""
    from headsurgeon.evaluation import ablate

    with busy(f"ablating {len(plan.operated)} heads, each alone and together"):
        ablation = ablate(
            model,
            plan,
            windows,
            mode=plan.ablation_mode,
            batch_size=batch_size,
            attention=attention,
        )
    shows.append(partial(_show_ablation, ablation))
    return ablation.model_dump(exclude={"ablated"})


def _show_ablation(ablation: "Ablation") -> None:
    ordered = sorted(ablation.singles.items(), key=lambda item: -item[1].value)
    rows = [[str(head), nats(cost)] for head, cost in ordered[:_SHOWN]]
    if len(ordered) > _SHOWN:
        rows.append([f"… {len(ordered) - _SHOWN} more", "less"])
    rows.append([f"all {len(ordered)}", nats(ablation.joint)])
    console = out()
    console.print(heading(f"what {ablation.mode} ablation of a head costs; above 0: it does work"))
    console.print(table(["head", "cost per token"], rows))
