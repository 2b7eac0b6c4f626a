"""What an arm does to the model before anything is trained: one branch per method."""

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel

from headsurgeon.data import Windows
from headsurgeon.errors import SettingsError, StudyError
from headsurgeon.heads import HeadId
from headsurgeon.operation import Learner, open_full, open_lora, operate
from headsurgeon.planning import Plan, PlannedHead
from headsurgeon.starts import choose_init, choose_output_start, looking_at_text
from headsurgeon.study.parts import Arm
from headsurgeon.study.spec import Study

_START = ("init", "output_start", "calibration")


def check_starts(study: Study) -> None:
    """Refuses starts that there are not or that nothing comes of, before anything is computed.

    Raises:
        StudyError: an arm with an unknown start, parameters that it does not take, one that its
            method does not carry out, or one that should look at text and has none, or the other
            way round; a rate for heads where nothing else is trained; names all.
    """
    faults = [
        f"arm {arm.name}: {fault}"
        for arm in study.every_arm
        for fault in (*_faults(arm), *_faults_of_rate(arm, study))
    ]
    if faults:
        raise StudyError("; ".join(faults))


def _faults(arm: Arm) -> Iterator[str]:
    known = True
    for choose, written in ((choose_init, arm.init), (choose_output_start, arm.output_start)):
        try:
            choose(written)
        except SettingsError as error:
            known = False
            yield str(error)
    fields = type(arm).model_fields
    started = (arm.init, arm.output_start, arm.calibration)
    without = (("none", "keep_output", 0), tuple(fields[name].default for name in _START))
    if not arm.operates and started not in without:
        yield (
            f"method {arm.method} begins with the model as it is, so {', '.join(_START)} would "
            "not be used; leave them out"
        )
    elif known and arm.calibration and not looking_at_text(arm.init, arm.output_start):
        yield f"calibration is {arm.calibration}, and {arm.init} looks at no text; leave it out"
    elif known and not arm.calibration and (names := looking_at_text(arm.init, arm.output_start)):
        yield f"{names[0]} looks at text before it chooses weights; give calibration, such as 32"


def _faults_of_rate(arm: Arm, study: Study) -> Iterator[str]:
    if not arm.trains or arm.method in ("full", "then_full"):
        return
    if {**study.train, **arm.train}.get("heads_rate", 1.0) != 1.0:
        yield "heads_rate is for arms that train the whole model; give it to those alone"


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
    patient = operate(model, own, seed=seed, calibration=calibration)
    return open_full(model, own, start=patient) if arm.method == "then_full" else patient


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
