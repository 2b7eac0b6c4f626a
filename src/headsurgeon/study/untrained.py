"""The heads of a study reinitialised and not trained: what those of its arms are compared with.

Arms that operate on the same heads with the same start have the same untrained heads, so these are
measured once and lie in a file; a cell that does not find its own measures and keeps them. They
have seeds of their own, and depend on no training.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedModel

from headsurgeon.data import Texts, Windows
from headsurgeon.evaluation import empirical_null
from headsurgeon.evaluation.recovery_rule import COMPARED, untrained_start
from headsurgeon.files import sha256_text
from headsurgeon.head_stats import HeadStats
from headsurgeon.operation import operate
from headsurgeon.planning import Plan
from headsurgeon.records import Record
from headsurgeon.results import Array
from headsurgeon.study.material import checked_windows, first_of, load_model, threads
from headsurgeon.study.results import (
    PLAN,
    PREPARED,
    STUDY,
    Cell,
    Keyed,
    Prepared,
    untrained_file,
)
from headsurgeon.study.spec import Study
from headsurgeon.study.start import plan_of
from headsurgeon.study.treatment import heads_of_cell

# unlike any seed that a study is likely to have
FIRST_SEED = 101


class HeadMeans(Record):
    """Means of the statistics that recovery is judged by, of one seed's untrained heads.

    They are over windows, of every head of the model.
    """

    first_token_mass: Annotated[Float[np.ndarray, "layer head"], Array()]
    entropy: Annotated[Float[np.ndarray, "layer head"], Array()]
    mean_distance: Annotated[Float[np.ndarray, "layer head"], Array()]

    def mean(self, name: str) -> Float[np.ndarray, "layer head"]:
        """The mean of one statistic, as `HeadStats.mean` gives it."""
        return np.asarray(getattr(self, name))

    @classmethod
    def of(cls, stats: HeadStats) -> "HeadMeans":
        """Those of a measurement."""
        return cls(**{name: stats.mean(name) for name in COMPARED})


ByText = Mapping[str, tuple[HeadMeans, ...]]


class UntrainedHeads(Keyed):
    """What was measured of them; `untrained-HASH.json`.

    Attributes:
        init, output_start: how they start.
        operated: the heads.
        texts: by text, their means, an entry per seed.
    """

    kind: ClassVar[str] = "untrained_heads"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    init: str
    output_start: str
    operated: tuple[str, ...]
    texts: dict[str, tuple[HeadMeans, ...]]


def untrained_heads(
    study: Study,
    prepared: Prepared,
    folder: Path,
    model: PreTrainedModel,
    plan: Plan,
    texts: Mapping[str, Windows | Texts],
) -> ByText:
    """The heads that `plan` operates on, reinitialised and not trained, in the untouched `model`.

    Args:
        plan: an arm's; they start as it says, or as `untrained_start` where that is no blind start.
        texts: test windows by name.
    """
    plan = _blindly(plan)
    key = _key(study, prepared, plan)
    path = untrained_file(folder, key)
    if path.exists():
        return UntrainedHeads.load_for(path, key).texts
    patient = operate(model, plan)
    patient.revert()
    seeds = range(FIRST_SEED, FIRST_SEED + study.null_seeds)
    statistics = study.windows.statistics
    untrained = UntrainedHeads(
        key=key,
        init=plan.init,
        output_start=plan.output_start,
        operated=tuple(map(str, plan.operated)),
        texts={
            name: tuple(
                map(HeadMeans.of, empirical_null(patient, first_of(part, statistics), seeds))
            )
            for name, part in texts.items()
        },
    )
    untrained.save(path)
    return untrained.texts


def run_untrained(folder: Path, cell: Cell, device: str) -> None:
    """Measures the untrained heads of a cell; raises as `headsurgeon.operate`."""
    study, prepared = Study.load(folder / STUDY), Prepared.load(folder / PREPARED)
    with threads(study.threads):
        model, tokenizer = load_model(study, "subject", device)
        texts = checked_windows(study, prepared, tokenizer)
        untrained_heads(study, prepared, folder, model, _plan(study, folder, cell), texts)


def first_of_each(
    study: Study, prepared: Prepared, folder: Path, cells: Iterable[Cell]
) -> list[Cell]:
    """Of the cells that operate on the study's own heads, one for each start; see `run_untrained`.

    None of those whose untrained heads have been measured.
    """
    first_cells: dict[Path, Cell] = {}
    for cell in cells:
        arm = study.arm(cell.arm)
        if arm.operates and (arm.model, arm.heads) == ("subject", "plan"):
            key = _key(study, prepared, _plan(study, folder, cell))
            first_cells.setdefault(untrained_file(folder, key), cell)
    return [cell for path, cell in first_cells.items() if not path.exists()]


def _plan(study: Study, folder: Path, cell: Cell) -> Plan:
    """The plan of a cell with the start of untrained heads."""
    heads = heads_of_cell(study, folder, cell)
    return _blindly(plan_of(study.arm(cell.arm), Plan.load(folder / PLAN), heads, study))


def _blindly(plan: Plan) -> Plan:
    """The same plan with the start of its untrained heads."""
    init, output_start = untrained_start(plan.init, plan.output_start)
    return plan.replace(init=init, output_start=output_start)


def _key(study: Study, prepared: Prepared, plan: Plan) -> str:
    content = {
        "init": plan.init,
        "output_start": plan.output_start,
        "heads": [str(head) for head in plan.operated],
        "statistics": study.windows.statistics,
        "seeds": study.null_seeds,
        "threads": study.threads,
        "dtype": study.dtype,
        "prepared": prepared.model_dump(mode="json"),
    }
    return sha256_text([json.dumps(content, sort_keys=True)])
