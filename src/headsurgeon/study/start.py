"""What an arm does to the model before anything is trained: one branch per method."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from headsurgeon.data import Windows
from headsurgeon.errors import SettingsError, StudyError
from headsurgeon.heads import HeadId
from headsurgeon.operation import Learner, open_full, open_lora, operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import choose_init, choose_output_start
from headsurgeon.study.parts import Arm
from headsurgeon.study.spec import Study


def check_starts(study: Study) -> None:
    """Refuses starts that there are not, before anything is computed.

    Raises:
        StudyError: an arm with an unknown start, or parameters that it does not take; names all.
    """
    faults = []
    for arm in study.every_arm:
        for choose, written in (
            (choose_init, arm.init),
            (choose_output_start, arm.output_start),
        ):
            try:
                choose(written)
            except SettingsError as error:
                faults.append(f"arm {arm.name}: {error}")
    if faults:
        raise StudyError("; ".join(faults))


def start_arm(
    arm: Arm,
    model: PreTrainedModel,
    plan: Plan,
    heads: Sequence[HeadId],
    seed: int,
    calibration: Windows | None,
    study: Study,
) -> Learner:
    """What is trained, open, started as the arm says; raises as `headsurgeon.operate`."""
    own = plan_of(arm, plan, heads, study)
    if arm.method == "full":
        return open_full(model, own)
    if arm.method == "lora":
        return open_lora(model, own, seed=seed)
    return operate(model, own, seed=seed, calibration=calibration)


def plan_of(arm: Arm, plan: Plan, heads: Sequence[HeadId], study: Study) -> Plan:
    """The study's plan with the arm's heads and start.

    Heads that the study's plan watches are watched, unless the arm operates on them. The twin has
    other weights than the plan was made for, which is intended.
    """
    known = {head.id: head for head in plan.heads}
    operated = [known.get(head, PlannedHead(id=head)).replace(role="operate") for head in heads]
    watched = [head for head in plan.heads if head.role == "watch" and head.id not in heads]
    changes: dict[str, Any] = {
        "heads": tuple(sorted((*operated, *watched), key=lambda head: head.id)),
        "init": arm.init,
        "output_start": arm.output_start,
        "rule": plan.rule if arm.heads == "plan" else arm.heads,
        "joint_cost": plan.joint_cost if arm.heads == "plan" else None,
    }
    if arm.model == "twin":
        changes |= {"model": str(study.twin), "fingerprint": None, "joint_cost": None}
    return plan.replace(**changes)
