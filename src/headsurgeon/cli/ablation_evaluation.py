"""What ablating the heads of a plan costs, each alone and all together."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from headsurgeon.cli.console import heading, nats, out, table
from headsurgeon.cli.progress import busy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from headsurgeon.data import Texts, Windows
    from headsurgeon.evaluation import Ablation
    from headsurgeon.planning import Plan
    from headsurgeon.scores import Evaluation

_SHOWN = 20


def evaluate_ablation(
    model: "PreTrainedModel",
    plan: "Plan",
    windows: "Windows | Texts",
    baseline: "Evaluation",
    batch_size: int | None,
    attention: Any,
    shows: list[Callable[[], None]],
) -> dict[str, Any]:
    """What the file of results says of it; `shows`, what is to be printed later, grows by it.

    `baseline` is the model's loss on the windows as it is.
    """
    from headsurgeon.evaluation import ablate

    # each alone and all together; under `mean` also their means
    passes = len(plan.operated) + 1 + (plan.ablation_mode == "mean")
    what = f"ablating {len(plan.operated)} heads, each alone and together"
    with busy(what, passes * len(windows)) as on_windows:
        ablation = ablate(
            model,
            plan,
            windows,
            mode=plan.ablation_mode,
            baseline=baseline,
            batch_size=batch_size,
            attention=attention,
            on_windows=on_windows,
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
