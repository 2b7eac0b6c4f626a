"""The learning rate of an arm, chosen on dev text: each arm at its own best, or none would be fair.

The grid is the arm's; where its best is at an end, it grows there by the factor between the last
two, until the best lies between two worse ones. One seed is used, and dev text alone.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from headsurgeon.diagnosis import Diagnosis
from headsurgeon.errors import OperationError, OutputError, StateError, StudyError
from headsurgeon.files import header, read_json, write_json
from headsurgeon.planning import Plan
from headsurgeon.study.heads import heads_of
from headsurgeon.study.material import dev_windows, load_model, threads, training_text
from headsurgeon.study.parts import Arm
from headsurgeon.study.prepare import Prepared, diagnosis_file
from headsurgeon.study.results import PLAN, RATE, RATES, STUDY, Record
from headsurgeon.study.spec import Study
from headsurgeon.study.start import start_arm
from headsurgeon.training import train
from headsurgeon.training.session import OnStep

# a grid that has not turned after this many more is no grid of this arm
EXTENSIONS = 6


class RateResult(Record):
    """What a search found; `rate.json`.

    Attributes:
        key: SHA-256 of all that decides it.
        losses: best loss on dev text by rate, nats per token; None where training diverged.
        chosen: the rate of the lowest.
    """

    kind: Literal["rate"] = "rate"
    schema_: int = Field(1, alias="schema")
    headsurgeon: str
    key: str
    arm: str
    text: str
    seed: int
    losses: dict[str, float | None]
    chosen: float


def run_rates(
    folder: Path, name: str, text: str, device: str, on_step: OnStep | None = None
) -> RateResult:
    """Searches the rate of an arm on one training text, or reads what was found before.

    Raises:
        Interrupted: stopped by the user; the same call resumes.
        StudyError: the best rate still lies at an end after six more, or all of them diverge.
    """
    study = Study.load(folder / STUDY)
    arm, seed = study.arm(name), study.seeds[0]
    key = _key(study, Prepared.load(folder), arm, text)
    place = folder / RATES / f"{name}-{text}"
    if (place / RATE).exists():
        return _read(place, key)
    with threads(study.threads):
        losses = {
            rate: _loss(study, folder, arm, text, rate, device, on_step) for rate in arm.rates
        }
        for _ in range(EXTENSIONS):
            further = next_rate(losses)
            if further is None:
                break
            losses[further] = _loss(study, folder, arm, text, further, device, on_step)
    best = min(sorted(losses), key=lambda rate: losses[rate])
    if not math.isfinite(losses[best]) or next_rate(losses) is not None:
        shown = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in sorted(losses.items()))
        raise StudyError(
            f"arm {name}: the best rate on dev text does not lie between two worse ones ({shown}); "
            "give it another grid"
        )
    result = RateResult(
        **header("rate"),
        key=key,
        arm=name,
        text=text,
        seed=seed,
        losses={
            f"{rate:g}": loss if math.isfinite(loss) else None
            for rate, loss in sorted(losses.items())
        },
        chosen=best,
    )
    write_json(place / RATE, result.model_dump(mode="json", by_alias=True))
    return result


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
    place = folder / RATES / f"{arm.name}-{text}"
    if not (place / RATE).exists():
        raise StateError(f"the learning rate of arm {arm.name} has not been searched yet")
    return _read(place, _key(study, Prepared.load(folder), arm, text)).chosen


def _loss(
    study: Study,
    folder: Path,
    arm: Arm,
    text: str,
    rate: float,
    device: str,
    on_step: OnStep | None,
) -> float:
    """Best loss on dev text at one rate, nats per token; infinite where training diverged."""
    seed = study.seeds[0]
    model, tokenizer = load_model(study, arm.model, device)
    plan = Plan.load(folder / PLAN)
    diagnoses = [Diagnosis.load(diagnosis_file(folder, name)) for name in study.diagnosed]
    calibration = dev_windows(study, text, tokenizer, arm.calibration) if arm.calibration else None
    heads = heads_of(arm, plan, diagnoses, seed)
    patient = start_arm(arm, model, plan, heads, seed, calibration, study)
    settings = study.settings(arm, seed, rate)
    train_windows, dev = training_text(study, arm, text, tokenizer, settings)
    output = folder / RATES / f"{arm.name}-{text}" / f"{rate:g}"
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        run = train(patient, train_windows, dev, output=output, settings=settings, on_step=on_step)
    except StateError:
        raise
    except OperationError as error:
        if type(error) is not OperationError:
            raise
        # a loss that is no number any more
        return math.inf
    return run.best_dev_loss


def _key(study: Study, prepared: Prepared, arm: Arm, text: str) -> str:
    content = {
        "arm": arm.model_dump(mode="json", exclude={"about"}),
        "text": text,
        "texts": [each.model_dump(mode="json") for each in study.texts],
        "windows": study.windows.model_dump(mode="json"),
        "threads": study.threads,
        "settings": study.settings(arm, study.seeds[0]).model_dump(mode="json"),
        "prepared": prepared.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(place: Path, key: str) -> RateResult:
    try:
        found = RateResult.model_validate(read_json(place / RATE, "rate"))
    except ValidationError as error:
        raise OutputError(
            f"{place / RATE} was altered since the study wrote it: remove it, and the search is "
            "made again"
        ) from error
    if found.key != key:
        raise StudyError(
            f"{place / RATE} is of other settings, versions or text than this study's; choose "
            "another folder, or remove it and the search is made again"
        )
    return found
