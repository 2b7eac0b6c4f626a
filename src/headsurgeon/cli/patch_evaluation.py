"""What patches brought: before and after, side by side with heads that were never trained."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsurgeon.cli.console import facts, first_few, heading, nats, out
from headsurgeon.cli.progress import busy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from headsurgeon.data import Texts, Windows
    from headsurgeon.evaluation import Drift, Recovery
    from headsurgeon.heads import HeadId
    from headsurgeon.scores import Evaluation


def evaluate_patches(
    model: "PreTrainedModel",
    patches: Sequence[Path],
    windows: "Windows | Texts",
    stock: "Evaluation",
    batch_size: int | None,
    attention: Any,
    shows: list[Callable[[], None]],
) -> "tuple[Evaluation, dict[str, Any]]":
    """Before and after: drift, who fell sick, the cost of ablating, and the recovery rule.

    Where the whole model was trained there is no drift of heads that nobody touched.

    Args:
        model: untouched.
        patches: files, put on one after the other, or one with the weights of a whole model;
            afterwards the model has them all.
        stock: the untouched model's loss on `windows`.
        shows: what is to be printed later; grows by this.

    Returns:
        The loss with the patches, and what the file of results says of them.
    """
    from headsurgeon.evaluation import (
        NULL_SEEDS,
        drift,
        empirical_null,
        measure_and_ablate,
        recovery_from,
    )
    from headsurgeon.operation import Patient, apply_trained

    patient = apply_trained(model, patches)
    heads = patient.plan.operated
    examine = partial(
        measure_and_ablate, model, heads, windows, batch_size=batch_size, attention=attention
    )
    patient.revert()
    count = len(windows)
    # heads and the loss without them; the loss with them is known already
    with busy("measuring the model without the patch", 2 * count) as on_windows:
        before = examine(score=stock, on_windows=on_windows)
    untrained = "comparing with the same heads reinitialised and not trained"
    with busy(untrained, len(NULL_SEEDS) * count) as on_windows:
        null = empirical_null(
            patient, windows, NULL_SEEDS, attention=attention, on_windows=on_windows
        )
    patient.merge()
    with busy("measuring the model with the patch", 3 * count) as on_windows:
        after = examine(on_windows=on_windows)
    limits = patient.plan.limits
    recovery = recovery_from([before], [after], [null], heads, sick_mass=limits.sink)
    # not the patient, which would hold the model
    whole = not isinstance(patient, Patient)
    shows.append(partial(_show_recovery, recovery, patient.frozen_key_values, whole))
    report: dict[str, Any] = {
        "patches": [str(patch) for patch in patches],
        # the two ablations stand beside it
        "recovery": recovery.model_dump(exclude={"stock", "revived"}),
        "ablation_before": recovery.stock[0].model_dump(exclude={"ablated"}),
        "ablation_after": recovery.revived[0].model_dump(exclude={"ablated"}),
    }
    if not whole:
        changed = drift(before.stats, after.stats, patient.plan)
        shows.append(partial(_show_drift, changed))
        report["drift"] = changed.model_dump()
    return after.ablation.baseline, report


def _show_recovery(
    recovery: "Recovery", frozen_key_values: "Sequence[HeadId]", whole: bool
) -> None:
    total = len(recovery.heads)
    before, now = recovery.stock[0].joint, recovery.revived[0].joint
    lines = {
        "recovered": f"{len(recovery.recovered)} of {total} heads: {_because(recovery)}",
        "no longer sick": f"{recovery.left_sick.sum()} of {total} (an untrained head is not sick "
        f"either: mean mass {recovery.null_mass[0]:.3f})",
        "unlike untrained": f"{recovery.unlike_null.sum()} of {total}",
        "ablating them": f"cost {nats(before)} before, {nats(now)} now",
        "more than before": nats(recovery.function[0]),
    }
    if frozen_key_values:
        lines["frozen K and V"] = first_few(frozen_key_values)
    console = out()
    console.print()
    what = "heads of the plan, in a model that was trained whole" if whole else "heads operated on"
    console.print(heading(f"{total} {what}"))
    console.print(facts(lines))


def _because(recovery: "Recovery") -> str:
    if recovery.recovered:
        return "not sick, unlike an untrained head, and the set does more work than before"
    low = recovery.function[0].low
    if low != low:
        return "one document gives no interval, so nothing can be said; read more documents"
    if low <= 0:
        return "ablating the set does not clearly cost more than it did before"
    return "none is both healthy and unlike an untrained head"


def _show_drift(changed: "Drift") -> None:
    watched, outside = changed.zones["watched"], changed.zones["outside"]
    groups = ("operated", "watched", "outside") if watched["heads"] else ("operated", "untouched")
    lines = {
        "drifted": f"{len(changed.drifted)} of the {changed.could_drift} untouched heads "
        f"that can change moved their mass by more than {changed.threshold:g}; "
        f"{changed.structural_zeros.sum()} more cannot change",
    }
    for group in groups:
        steps = changed.transitions[group].items()
        lines[group] = ", ".join(f"{count} {before} → {after}" for (before, after), count in steps)
    if watched["heads"]:
        lines["of these"] = (
            f"{watched['drifted']} of {watched['could_drift']} watched heads, "
            f"{outside['drifted']} of {outside['could_drift']} outside"
        )
    if changed.drifted:
        lines["which"] = first_few(changed.drifted)
    console = out()
    console.print()
    console.print(heading("the other heads"))
    console.print(facts(lines))
