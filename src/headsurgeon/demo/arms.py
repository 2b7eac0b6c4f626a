"""The arms: who is trained, from which start, at which rate; all on the same tokens in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from headsurgeon.demo.journal import Journal
from headsurgeon.demo.material import OTHER, TEST, Material
from headsurgeon.demo.settings import DemoSettings
from headsurgeon.demo.training import training
from headsurgeon.evaluation import StatsAndAblation, evaluate, measure_and_ablate
from headsurgeon.heads import HeadStats
from headsurgeon.operation import Patient, operate
from headsurgeon.planning import Plan
from headsurgeon.scores import Evaluation
from headsurgeon.training import Run, StepEvent, read_log, train


@dataclass(frozen=True)
class Arm:
    """One arm: its name, its plan, and the rate its slices are trained at."""

    name: str
    plan: Plan
    learning_rate: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one arm came to; all figures are those of the merged model.

    Attributes:
        arm: the arm.
        run: the training run.
        curve_tokens, curve_loss: loss on dev text (nats per token) by tokens trained.
        scores: losses by name of the test windows.
        conditions: by that name, statistics of the heads and what ablating the operated ones
            costs; on other text of surgery alone.
    """

    arm: Arm
    run: Run
    curve_tokens: tuple[int, ...]
    curve_loss: tuple[float, ...]
    scores: Mapping[str, Evaluation]
    conditions: Mapping[str, StatsAndAblation]

    @property
    def stats(self) -> HeadStats:
        """Statistics on test text of the corpus trained on."""
        return self.conditions[TEST].stats


def arms(plan: Plan, settings: DemoSettings) -> dict[str, Arm]:
    """Surgery, its control and, with a healthy twin, the ceiling.

    The control trains the same slices from the weights they have: whatever surgery brings over it
    is due to starting anew. The ceiling does the same to the twin, since extra tokens help all.
    """
    kept = plan.replace(init="none", output_start="keep_output")
    found = {
        "surgery": Arm("surgery", plan, settings.surgery_rate),
        "control": Arm("control", kept, settings.control_rate),
    }
    if settings.ceiling is not None:
        twin = kept.replace(model=settings.ceiling, fingerprint=None, joint_cost=None)
        found["ceiling"] = Arm("ceiling", twin, settings.ceiling_rate)
    return found


def treat(
    model: PreTrainedModel,
    arm: Arm,
    material: Material,
    settings: DemoSettings,
    folder: Path,
    journal: Journal,
) -> tuple[Patient, Outcome]:
    """Operates on `model`, trains the slices, merges, and measures what came out.

    Args:
        folder: of the training run; a run that was interrupted there goes on.

    Returns:
        The patient, merged, and the figures.

    Raises:
        Interrupted: stopped by the user; the run can be resumed.
    """
    patient = operate(model, arm.plan, seed=settings.seed)

    def report(event: StepEvent) -> None:
        journal.observer.trained(arm.name, event)

    slices = sum(part.numel() for part in patient.slices())
    with journal.stage(
        f"training {arm.name}: {slices:,} slice parameters, {settings.max_tokens:,} tokens, "
        f"learning rate {arm.learning_rate:g}"
    ):
        run = train(
            patient,
            material.train,
            material.progress,
            output=folder,
            settings=training(settings, arm.learning_rate),
            on_step=report,
        )
    patient.merge()
    with journal.stage(f"scoring {arm.name}, merged, on the same test text"):
        scores = {name: evaluate(model, part) for name, part in material.test.items()}
        conditions = {
            name: measure_and_ablate(
                model,
                arm.plan.operated,
                material.test[name],
                measured=material.heads[name],
                score=scores[name],
            )
            for name in ((TEST, OTHER) if arm.name == "surgery" else (TEST,))
        }
    points = read_log(run)
    tokens, losses = zip(*points, strict=True)
    return patient, Outcome(arm, run, tokens, losses, scores, conditions)
