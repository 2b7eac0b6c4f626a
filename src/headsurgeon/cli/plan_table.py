"""A plan on the terminal: its heads, what ablating them costs, and remarks."""

from typing import TYPE_CHECKING

from headsurgeon.cli.console import facts, heading, out, table

if TYPE_CHECKING:
    from headsurgeon.planning import Plan

_SHOWN = 40


def show_plan(plan: "Plan") -> None:
    """Prints the heads of a plan, the dearest first, and what they cost together."""
    console = out()
    columns = ["head", "role", "verdict", "mass", "null", "slope", "entropy", "ablating costs"]
    ordered = sorted(plan.heads, key=lambda head: (-(head.ablation_cost or 0.0), head.id))
    rows = [
        [
            str(head.id),
            head.role,
            head.verdict,
            *(_number(head.statistics.get(name)) for name in ("first_token_mass", "null_mass")),
            *(_number(head.statistics.get(name)) for name in ("slope", "entropy")),
            "–"
            if head.ablation_cost is None
            else f"{'~' if head.cost_estimated else ''}{head.ablation_cost:+.4f}",
        ]
        for head in ordered[:_SHOWN]
    ]
    console.print(heading(f"{len(plan.operated)} heads to operate on, rule {plan.rule}"))
    console.print(table(columns, rows))
    if len(ordered) > _SHOWN:
        console.print(f"… and {len(ordered) - _SHOWN} more in the file", style="dim")
    console.print()
    console.print(facts(_remarks(plan)))


def _remarks(plan: "Plan") -> dict[str, str]:
    lines = {"model": plan.model, "start": f"{plan.init}, {plan.output_start}, seed {plan.seed}"}
    if plan.joint_cost is not None:
        lines["together"] = (
            f"ablating all {len(plan.operated)} costs {plan.joint_cost:+.4f} nats per token now "
            f"({plan.ablation_mode} ablation; single costs above, in nats too, do not add up)"
        )
    if any(head.cost_estimated for head in plan.heads):
        lines["~"] = "estimated from gradients; --exact-costs ablates each head by itself"
    for index, note in enumerate(plan.notes):
        lines[" " * index if index else "notes"] = note
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
