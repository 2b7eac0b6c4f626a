"""What is done once for a study: diagnosis, plan, and the scores of the untouched model."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from headsurgeon.diagnosis import Diagnosis, diagnose
from headsurgeon.errors import PlanError, StudyError
from headsurgeon.evaluation import SCREENING_PASSES, HighestCost, ablation_cost, for_costs
from headsurgeon.files import package_version
from headsurgeon.measurement import measure
from headsurgeon.models.fingerprint import combined, fingerprints
from headsurgeon.models.forward import OnWindows
from headsurgeon.models.planted import is_planted
from headsurgeon.planning import Costs, Plan
from headsurgeon.planning.planning import expected_costs, plan
from headsurgeon.study.heads import sick_on_all
from headsurgeon.study.kept_attention import keep_attention
from headsurgeon.study.keys import key_of
from headsurgeon.study.material import (
    diagnosed_windows,
    first_of,
    hash_of,
    load_model,
    scored_windows,
)
from headsurgeon.study.parts import UNTOUCHED
from headsurgeon.study.results import (
    PLAN,
    PREPARED,
    Cell,
    CellResult,
    Prepared,
    cell_file,
    diagnosis_file,
    stock_file,
)
from headsurgeon.study.scoring import score
from headsurgeon.study.spec import Study

Tell = Callable[[str, int | None], None]


def versions() -> dict[str, str]:
    """The libraries that figures depend on."""
    return {
        "headsurgeon": package_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def prepare(study: Study, folder: Path, device: str, tell: Tell, on_windows: OnWindows) -> Prepared:
    """Diagnoses, plans, and scores the untouched model; what is there already is read.

    Args:
        folder: of the study, held by the caller.
        device: where the models run.
        tell: told what begins, in words, and about how many windows it reads.
        on_windows: as for `measure`.

    Raises:
        PlanError: nothing to operate on.
        StudyError: the folder was prepared under other versions of the libraries.
        ModelError, CorpusError: as `headsurgeon.load` and `headsurgeon.windows`.
    """
    if (folder / PREPARED).exists():
        prepared = Prepared.load(folder / PREPARED)
        _check_versions(prepared, folder)
        return prepared
    started = time.monotonic()
    tell(f"loading {study.model}", None)
    model, tokenizer = load_model(study, "subject", device)
    diagnoses: dict[str, Diagnosis] = {}
    limits = study.plan.limits
    costs: list[Costs] = []
    mode = study.plan.ablation_mode
    # windows of all texts that are read for an estimate, and for each set that is ablated
    per_estimate = per_set = 0
    for name in study.diagnosed:
        most = max(study.windows.diagnose, 2 * study.windows.price)
        dev = diagnosed_windows(study, name, tokenizer, most)
        part = first_of(dev, study.windows.diagnose)
        measured, others = for_costs(dev, study.windows.price)
        tell(
            f"measuring every head on {len(part)} windows of {part.length} tokens of {name}",
            len(part) + len(measured),
        )
        stats = measure(model, part, on_windows=on_windows)
        diagnoses[name] = diagnose(stats, limits, seed=study.windows.seed)
        diagnoses[name].save(diagnosis_file(folder, name))
        costs.append(
            ablation_cost(model, measured, estimated_on=others, mode=mode, on_windows=on_windows)
        )
        per_estimate += SCREENING_PASSES * len(others)
        per_set += len(measured)
    cost = HighestCost(costs)
    candidates = study.plan.heads or sick_on_all(list(diagnoses.values()))
    estimates, sets = expected_costs(
        study.plan.rule, len(candidates), estimated=cost.not_estimated is None
    )
    tell(
        f"ablating sick heads ({mode}) on {study.windows.price} windows per text",
        estimates * per_estimate + ((mode == "mean") + sets) * per_set,
    )
    plan = choose(study, diagnoses, cost, model)
    plan.save(folder / PLAN)
    texts, statistics = scored_windows(study, tokenizer), study.windows.statistics
    tell(
        f"scoring the untouched model on {len(next(iter(texts.values())))} windows per text",
        # as it is, twice ablated and the means; and the statistics
        sum(4 * len(part) + len(first_of(part, statistics)) for part in texts.values()),
    )
    scores = score(
        model,
        texts,
        plan.operated,
        statistics=statistics,
        modes=("zero", "mean"),
        on_windows=on_windows,
    )
    keep_attention(model, tokenizer, study, texts, Cell(UNTOUCHED), plan.operated, folder)
    for name, condition in scores.conditions.items():
        diagnose(condition.stats, limits).save(stock_file(folder, name))
    twin = None
    if study.twin is not None:
        tell(f"loading {study.twin}, the healthy twin", None)
        twin = _weights_of(load_model(study, "twin", device)[0])
    prepared = Prepared(
        model=_weights_of(model),
        twin=twin,
        windows={name: hash_of(part) for name, part in texts.items()},
        plan=hashlib.sha256((folder / PLAN).read_bytes()).hexdigest(),
        versions=versions(),
        device=torch.device(model.device).type,
        planted=is_planted(study.model),
    )
    CellResult(
        key=key_of(study, prepared, Cell(UNTOUCHED)),
        arm=UNTOUCHED,
        text="",
        seed=None,
        status="done",
        environment={**prepared.versions, "device": prepared.device},
        seconds=round(time.monotonic() - started, 1),
        scored=scores.scored,
        heads=scores.heads,
        operated=tuple(map(str, plan.operated)),
    ).save(cell_file(folder, Cell(UNTOUCHED)))
    # last: it is there = all of the above is
    prepared.save(folder / PREPARED)
    return prepared


def choose(
    study: Study, diagnoses: dict[str, Diagnosis], cost: Costs, model: PreTrainedModel
) -> Plan:
    """The study's plan: heads that are sick on every text diagnosed, with what ablating them costs.

    Raises:
        PlanError: there are none, or the rule does not fit the model.
    """
    rule, first = study.plan, next(iter(diagnoses.values()))
    everywhere = sick_on_all(list(diagnoses.values()))
    options: dict[str, Any] = {
        "band": rule.band,
        "layers": rule.layers,
        "column": rule.column,
        "watch": rule.watch,
        "heads": rule.heads,
        "max_cost": rule.max_cost,
        "ablation_mode": rule.ablation_mode,
        "seed": study.seeds[0],
        "model": model,
    }
    if rule.rule == "idle":
        return plan(first, "idle", cost=cost, **{**options, "heads": rule.heads or everywhere})
    if rule.rule in ("heads", "column") or len(diagnoses) == 1:
        return plan(first, rule.rule, cost=cost, **options)
    # the rule's heads, as far as they are sick on the other texts too
    held = [head for head in plan(first, rule.rule, **options).operated if head in everywhere]
    if not held:
        raise PlanError("no head of the rule is sick on every text that is diagnosed")
    options |= {"band": None, "layers": None, "column": None, "heads": held}
    return plan(first, "heads", cost=cost, **options)


def _check_versions(prepared: Prepared, folder: Path) -> None:
    here = versions()
    differing = [
        f"{name} {prepared.versions.get(name, 'unknown')}, here {value}"
        for name, value in here.items()
        if prepared.versions.get(name) != value
    ]
    if differing:
        raise StudyError(
            f"{folder} was prepared under {'; '.join(differing)}: cells of both could not be "
            "compared; choose another folder, or install the versions it was begun with"
        )


def _weights_of(model: PreTrainedModel) -> str:
    return combined(fingerprints(model, (name for name, _ in model.named_parameters())))
