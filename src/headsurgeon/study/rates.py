"""The learning rate of an arm, chosen on dev text: each arm at its own best, or none would be fair.

The grid is the arm's; where its best is at an end, it grows there by the factor between the last
two, until the best lies between two worse ones. One seed is used, and dev text alone.
"""

import math
from pathlib import Path

from headsurgeon.errors import OperationError, StateError, StudyError
from headsurgeon.study.keys import key_of
from headsurgeon.study.material import threads
from headsurgeon.study.parts import Arm
from headsurgeon.study.results import (
    PREPARED,
    STUDY,
    Cell,
    Prepared,
    RateResult,
    rate_file,
    rate_run,
)
from headsurgeon.study.spec import Study
from headsurgeon.study.treatment import open_cell, train_cell
from headsurgeon.training.session import OnStep

# a grid that has not turned after this many more is no grid of this arm
EXTENSIONS = 6


def run_rates(
    folder: Path, name: str, text: str, device: str, on_step: OnStep | None = None
) -> RateResult:
    """Searches the rate of an arm on one training text, or reads what was found before.

    Raises:
        Interrupted: stopped by the user; the same call resumes.
        StudyError: the best rate still lies at an end after six more, or all of them diverge.
    """
    study = Study.load(folder / STUDY)
    arm, cell = study.arm(name), searched(study, name, text)
    key = key_of(study, Prepared.load(folder / PREPARED), cell, rates=True)
    path = rate_file(folder, name, text)
    if path.exists():
        return RateResult.load_for(path, key)
    with threads(study.threads):
        losses = {rate: _loss(study, folder, cell, rate, device, on_step) for rate in arm.rates}
        for _ in range(EXTENSIONS):
            further = next_rate(losses)
            if further is None:
                break
            losses[further] = _loss(study, folder, cell, further, device, on_step)
    best = min(sorted(losses), key=lambda rate: losses[rate])
    if not math.isfinite(losses[best]) or next_rate(losses) is not None:
        shown = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in sorted(losses.items()))
        raise StudyError(
            f"arm {name}: the best rate on dev text does not lie between two worse ones ({shown}); "
            "give it another grid"
        )
    result = RateResult(
        key=key,
        arm=name,
        text=text,
        seed=study.seeds[0],
        losses={
            f"{rate:g}": loss if math.isfinite(loss) else None
            for rate, loss in sorted(losses.items())
        },
        chosen=best,
    )
    result.save(path)
    return result


def searched(study: Study, arm: str, text: str) -> Cell:
    """The cell that is trained at every rate: the arm's with the study's first seed."""
    return Cell(arm, text, study.seeds[0])


def next_rate(losses: dict[float, float]) -> float | None:
    """The rate that the grid still needs, beyond an end that beats its neighbour; None for none.

    A loss that is no number is worse than any. Where all are alike, as when no training helps, no
    end beats anything.
    """
    known = {rate: math.inf if math.isnan(loss) else loss for rate, loss in losses.items()}
    rates = sorted(known)
    best = min(known.values())
    if known[rates[0]] == best < known[rates[1]]:
        return rates[0] * rates[0] / rates[1]
    if known[rates[-1]] == best < known[rates[-2]]:
        return rates[-1] * rates[-1] / rates[-2]
    return None


def chosen_rate(folder: Path, study: Study, arm: Arm, text: str) -> float | None:
    """The rate that was found for an arm; None where it has no grid.

    Raises:
        StateError: it has not been searched yet.
    """
    if not arm.rates:
        return None
    path = rate_file(folder, arm.name, text)
    if not path.exists():
        raise StateError(f"the learning rate of arm {arm.name} has not been searched yet")
    prepared = Prepared.load(folder / PREPARED)
    key = key_of(study, prepared, searched(study, arm.name, text), rates=True)
    return RateResult.load_for(path, key).chosen


def _loss(
    study: Study, folder: Path, cell: Cell, rate: float, device: str, on_step: OnStep | None
) -> float:
    """Best loss on dev text at one rate, nats per token; infinite where training diverged."""
    output = rate_run(folder, cell.arm, cell.text, rate)
    output.parent.mkdir(parents=True, exist_ok=True)
    opened = open_cell(study, folder, cell, device)
    try:
        run, _ = train_cell(study, opened, output, rate, on_step)
    except OperationError as error:
        # those of a kind say what else went wrong; this one that a loss is no number any more
        if type(error) is not OperationError:
            raise
        return math.inf
    return run.best_dev_loss
