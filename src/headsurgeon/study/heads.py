"""Which heads an arm operates on: the plan's, or others in their place as a control."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import StudyError
from headsurgeon.heads import HeadId
from headsurgeon.planning import Plan
from headsurgeon.planning.matching import nearest
from headsurgeon.study.parts import Arm


def heads_of(arm: Arm, plan: Plan, diagnoses: Sequence[Diagnosis], seed: int) -> tuple[HeadId, ...]:
    """The heads that an arm operates on, sorted.

    Args:
        plan: the study's plan.
        diagnoses: of the untouched model, on each text diagnosed; sick heads are sick on all of
            them, healthy ones on the first.
        seed: of heads drawn at random.

    Raises:
        StudyError: a layer has too few heads to take in place of the planned ones.
    """
    if arm.heads == "plan":
        return plan.operated
    if arm.heads == "sick":
        return sick_on_all(diagnoses)
    diagnosis = diagnoses[0]
    if arm.heads == "column":
        return _with_column(arm, plan, diagnosis)
    planned = set(plan.operated)
    rng = np.random.default_rng(seed)
    heads: list[HeadId] = []
    for layer, count in sorted(Counter(head.layer for head in plan.operated).items()):
        healthy = diagnosis.verdicts[layer] == "healthy"
        if arm.heads == "random":
            others = np.arange(diagnosis.stats.shape[1])
            taken = rng.choice(others, size=count, replace=False)
        else:
            targets = np.array([head.head for head in plan.operated if head.layer == layer])
            pool = [h for h in np.flatnonzero(healthy) if HeadId(layer, int(h)) not in planned]
            if len(pool) < count:
                raise StudyError(
                    f"arm {arm.name}: layer {layer} has {count} planned heads and only {len(pool)} "
                    "healthy ones to take in their place; operate on fewer, or leave this arm out"
                )
            taken = np.array(nearest(diagnosis.stats.slopes[layer], targets, np.array(pool)))
        heads += [HeadId(layer, int(head)) for head in taken]
    return tuple(sorted(heads))


def sick_on_all(diagnoses: Sequence[Diagnosis]) -> tuple[HeadId, ...]:
    """The heads that are sick on every text diagnosed: a sink on one text alone may be work."""
    first, *others = diagnoses
    return tuple(head for head in first.sick if all(each.is_sick[head] for each in others))


def _with_column(arm: Arm, plan: Plan, diagnosis: Diagnosis) -> tuple[HeadId, ...]:
    _, width = diagnosis.stats.shape
    column = arm.column
    if column is None or column >= width:
        raise StudyError(f"arm {arm.name}: column {column}: the model has heads 0–{width - 1}")
    spanned = [head.layer for head in plan.operated]
    attending = np.flatnonzero(diagnosis.stats.attends)
    inside = (layer for layer in attending if min(spanned) <= layer <= max(spanned))
    return tuple(sorted({*plan.operated, *(HeadId(int(layer), column) for layer in inside)}))
