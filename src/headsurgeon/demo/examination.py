"""Before anything is changed: diagnosis, plan with prices, and the untouched model's losses."""

from dataclasses import dataclass

from transformers import PreTrainedModel

from headsurgeon.arch import layout_of
from headsurgeon.data import Windows
from headsurgeon.demo.journal import Journal
from headsurgeon.demo.material import TEST, Material
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.diagnose import Diagnosis, diagnose, plan
from headsurgeon.evaluate import (
    Estimate,
    Evaluation,
    ablation_cost,
    difference,
    evaluate,
    silenced,
)
from headsurgeon.heads import HeadStats, Plan
from headsurgeon.measure import measure


@dataclass(frozen=True, eq=False)
class Case:
    """What is known before the operation.

    Attributes:
        diagnosis: verdicts on dev text.
        plan: the heads to operate on, each with what silencing it costs.
        scores: losses of the untouched model, by name of the test windows.
        stats: statistics of its heads on the test windows of the training corpus.
        ablation: what silencing the planned heads together costs on those windows.
    """

    diagnosis: Diagnosis
    plan: Plan
    scores: dict[str, Evaluation]
    stats: HeadStats
    ablation: Estimate


def find_sick(material: Material, settings: DemoSettings, journal: Journal) -> Diagnosis:
    """Measures every head on dev text and gives it a verdict."""
    dev = material.dev
    with journal.stage(f"measuring every head on {_size(dev)} of dev text"):
        diagnosis = diagnose(measure(material.model, dev), seed=settings.seed)
    journal.observer.diagnosed(diagnosis)
    return diagnosis


def examine(
    material: Material, diagnosis: Diagnosis, settings: DemoSettings, journal: Journal
) -> Case:
    """Decides which heads to operate on, and measures the untouched model on test text.

    Raises:
        PlanError: no head is sick, or none of the sick ones is idle.
    """
    with journal.stage(f"pricing {len(diagnosis.sick)} sick heads on {_size(material.cost)}"):
        chosen = plan(
            diagnosis,
            settings.rule,
            cost=ablation_cost(material.model, material.cost),
            max_cost=settings.max_cost,
            seed=settings.seed,
            model=material.model,
        )
    with journal.stage(f"scoring the untouched model on {_size(material.test[TEST])} per corpus"):
        scores = {name: evaluate(material.model, part) for name, part in material.test.items()}
        stats = measure(material.model, material.test[TEST])
        worth = silencing_cost(material.model, chosen, material.test[TEST], scores[TEST])
    return Case(diagnosis, chosen, scores, stats, worth)


def silencing_cost(
    model: PreTrainedModel, plan: Plan, windows: Windows, score: Evaluation
) -> Estimate:
    """What zeroing the planned heads together costs, nats per token.

    Args:
        score: the model's loss on `windows`, which is not computed a second time.
    """
    with silenced(model, layout_of(model), plan.operated):
        return difference(evaluate(model, windows), score)


def _size(windows: Windows) -> str:
    return f"{len(windows)} windows of {windows.length} tokens"
