"""Before anything is changed: diagnosis, plan, ablation costs, losses of the untouched model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from headsurgeon.data import Windows
from headsurgeon.demo.journal import Journal
from headsurgeon.demo.material import OTHER, TEST, Material
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.diagnosis import Diagnosis, diagnose
from headsurgeon.evaluation import (
    Ablation,
    StatsAndAblation,
    ablate,
    ablation_cost,
    evaluate,
    measure_and_ablate,
)
from headsurgeon.heads import HeadId, HeadStats
from headsurgeon.measurement import measure
from headsurgeon.planning import Plan
from headsurgeon.planning.planning import plan
from headsurgeon.scores import Evaluation


@dataclass(frozen=True, eq=False)
class Case:
    """What is known before the operation, by name of the windows where it is a mapping.

    Attributes:
        diagnoses: verdicts on dev text.
        plan: the heads to operate on, each with what ablating it costs.
        scores: losses of the untouched model on test text.
        conditions: statistics of its heads, and what ablating the planned heads costs.
        all_sick: what ablating all sick heads costs; empty where all of them are planned.
    """

    diagnoses: Mapping[str, Diagnosis]
    plan: Plan
    scores: Mapping[str, Evaluation]
    conditions: Mapping[str, StatsAndAblation]
    all_sick: Mapping[str, Ablation]

    @property
    def diagnosis(self) -> Diagnosis:
        """Verdicts on the corpus trained on."""
        return self.diagnoses[TEST]

    @property
    def sick(self) -> tuple[HeadId, ...]:
        """The heads that are sick on every corpus diagnosed."""
        return sick_everywhere(self.diagnoses)

    @property
    def stats(self) -> HeadStats:
        """Statistics on test text of the corpus trained on."""
        return self.conditions[TEST].stats


def sick_everywhere(diagnoses: Mapping[str, Diagnosis]) -> tuple[HeadId, ...]:
    """The heads that are sick on every corpus diagnosed."""
    return tuple(
        head
        for head in diagnoses[TEST].sick
        if all(diagnosis.is_sick[head] for diagnosis in diagnoses.values())
    )


def find_sick(material: Material, settings: DemoSettings, journal: Journal) -> dict[str, Diagnosis]:
    """Measures every head on dev text and gives it a verdict."""
    found = {}
    names = {TEST: settings.corpus_kind, OTHER: settings.other_kind}
    for name, dev in material.dev.items():
        what = f"dev text, {names[name]}" if names[name] else "dev text"
        with journal.stage(f"measuring every head on {_size(dev)} of {what}"):
            found[name] = diagnose(measure(material.model, dev), seed=settings.seed)
        journal.observer.diagnosed(found[name])
    return found


def examine(
    material: Material,
    diagnoses: Mapping[str, Diagnosis],
    settings: DemoSettings,
    journal: Journal,
) -> Case:
    """Decides which heads to operate on, and measures the untouched model on test text.

    Raises:
        PlanError: no head is sick, or none of the sick ones is idle.
    """
    model, sick = material.model, sick_everywhere(diagnoses)
    with journal.stage(f"ablating {len(sick)} sick heads on {_sizes(material.cost)}"):
        chosen = choose(model, diagnoses, material.cost, settings)
    with journal.stage(f"scoring the untouched model on {_sizes(material.test)}"):
        scores = {name: evaluate(model, part) for name, part in material.test.items()}
        conditions = {
            name: measure_and_ablate(
                model,
                chosen.operated,
                part,
                measured=material.heads[name],
                score=scores[name],
            )
            for name, part in material.test.items()
        }
    all_sick = {}
    if len(chosen.operated) < len(sick):
        with journal.stage(f"ablating all {len(sick)} sick heads on the same test text"):
            all_sick = {
                name: ablate(model, sick, part, singles=False, baseline=scores[name])
                for name, part in material.test.items()
            }
    return Case(diagnoses, chosen, scores, conditions, all_sick)


def choose(
    model: PreTrainedModel,
    diagnoses: Mapping[str, Diagnosis],
    cost: Mapping[str, Windows],
    settings: DemoSettings,
) -> Plan:
    """Decides which heads to operate on.

    Args:
        cost: dev windows of each corpus diagnosed, on which heads are ablated.

    Raises:
        PlanError: no head is sick, or none of the sick ones is idle.
    """
    return plan(
        diagnoses[TEST],
        settings.rule,
        heads=sick_everywhere(diagnoses) if settings.rule == "idle" else None,
        cost=_dearest([ablation_cost(model, part) for part in cost.values()]),
        max_cost=settings.max_cost,
        seed=settings.seed,
        model=model,
    )


def _dearest(
    costs: Sequence[Callable[[Sequence[HeadId]], float]],
) -> Callable[[Sequence[HeadId]], float]:
    """The cost on the text where it is highest: a head may work on one text alone."""
    return lambda heads: max(cost(heads) for cost in costs)


def _sizes(parts: Mapping[str, Windows]) -> str:
    each = " per corpus" if len(parts) > 1 else ""
    return f"{_size(next(iter(parts.values())))}{each}"


def _size(windows: Windows) -> str:
    return f"{len(windows)} windows of {windows.length} tokens"
