"""Which heads recovered — in function, not just in mass.

A random head is not sick: "mass fell below 0.5 after reinitialisation" is true before any training.
So a head counts as recovered when three things hold:

1. it left the sick class on every corpus measured;
2. it differs from an untrained head: on every corpus its interval in mass, entropy or distance lies
   outside the spread of the same head reinitialised and not trained, over several seeds;
3. ablating the revived set costs more loss than ablating the same set in the stock model, with the
   whole interval above 0, on every corpus.

Heads reinitialised and not trained count as 0 recovered: they fail 2 by construction and, as their
output is zero, 3 as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from headsurgeon.bootstrap import mean_interval
from headsurgeon.data import Windows
from headsurgeon.errors import StateError
from headsurgeon.evaluate.ablation import Ablation, ablate
from headsurgeon.evaluate.perplexity import Estimate, difference_of_differences
from headsurgeon.heads import HeadId, HeadStats
from headsurgeon.measure import measure
from headsurgeon.operate import Patient, operate

COMPARED = ("first_token_mass", "entropy", "mean_distance")
SICK_MASS = 0.5


@dataclass(frozen=True)
class Recovery:
    """What an operation brought back.

    Attributes:
        heads: the operated heads, in order.
        left_sick: which of them left the sick class on every corpus — all the paper asks.
        unlike_null: which of them differ from an untrained head on every corpus.
        function: per corpus, ablation cost of the set after minus before, nats per token.
        null: per corpus, the mean over seeds of the untrained heads' mass, fraction.
    """

    heads: tuple[HeadId, ...]
    left_sick: Bool[np.ndarray, " operated"]
    unlike_null: Bool[np.ndarray, " operated"]
    function: tuple[Estimate, ...]
    null: tuple[Float[np.ndarray, " operated"], ...]

    @property
    def functional(self) -> bool:
        """Whether the revived set does more work than the stock set did, on every corpus."""
        return bool(self.function) and all(gain.above_zero for gain in self.function)

    @property
    def recovered(self) -> tuple[HeadId, ...]:
        """The heads for which all three conditions hold."""
        if not self.functional:
            return ()
        held = self.left_sick & self.unlike_null
        return tuple(head for head, yes in zip(self.heads, held, strict=True) if yes)

    def to_dict(self) -> dict[str, Any]:
        """Figures for JSON."""
        return {
            "operated": len(self.heads),
            "recovered": [str(head) for head in self.recovered],
            "left_sick": int(self.left_sick.sum()),
            "unlike_null": int(self.unlike_null.sum()),
            "function": [gain.to_dict() for gain in self.function],
            "null_mass": [float(mass.mean()) for mass in self.null],
        }


def empirical_null(patient: Patient, windows: Windows, seeds: Sequence[int]) -> list[HeadStats]:
    """The same heads reinitialised as planned and not trained, measured once per seed.

    The patient must be reverted, so that its model is the stock one; it is again afterwards.
    """
    measured = []
    for seed in seeds:
        untrained = operate(patient.model, patient.plan, seed=seed)
        measured.append(measure(patient.model, windows))
        untrained.revert()
    return measured


def recovery(
    patient: Patient,
    windows: Windows | Sequence[Windows],
    *,
    null_seeds: Sequence[int] = (101, 102, 103, 104, 105),
    sick_mass: float = SICK_MASS,
) -> Recovery:
    """Applies the rule above to a patient; afterwards the patient is merged.

    Args:
        patient: trained (or not), in any state but untouched.
        windows: one corpus or several; held-out text, at least two documents each.
        null_seeds: seeds of the untrained heads; their spread is what "differs" is judged by.
        sick_mass: mass above which a head is sick, fraction.

    Raises:
        StateError: the plan operates on nothing.
    """
    heads = patient.plan.operated
    if not heads:
        raise StateError("the plan operates on no head, so there is nothing to recover")
    corpora = [windows] if isinstance(windows, Windows) else list(windows)
    left_sick = np.ones(len(heads), dtype=bool)
    unlike_null = np.ones(len(heads), dtype=bool)
    function, nulls = [], []
    for corpus in corpora:
        patient.revert()
        stock = ablate(patient.model, heads, corpus, singles=False)
        null = empirical_null(patient, corpus, null_seeds)
        patient.merge()
        stats = measure(patient.model, corpus)
        revived = ablate(patient.model, heads, corpus, singles=False)
        left_sick &= _pick(stats.first_token_mass, heads) <= sick_mass
        unlike_null &= _unlike(stats, null, heads)
        function.append(_gain(revived, stock))
        nulls.append(_pick(np.mean([n.first_token_mass for n in null], axis=0), heads))
    return Recovery(heads, left_sick, unlike_null, tuple(function), tuple(nulls))


def _gain(revived: Ablation, stock: Ablation) -> Estimate:
    return difference_of_differences(
        (revived.ablated, revived.baseline), (stock.ablated, stock.baseline)
    )


def _unlike(
    stats: HeadStats, null: Sequence[HeadStats], heads: Sequence[HeadId]
) -> Bool[np.ndarray, " operated"]:
    """Whether a head's interval leaves the null's spread (mean ± 3 standard deviations)."""
    unlike = np.zeros(len(heads), dtype=bool)
    for name in COMPARED:
        documents = stats.per_document(name)
        interval = mean_interval(documents, stats.document_weights.sum(axis=1))
        low, high = _pick(interval.low, heads), _pick(interval.high, heads)
        values = np.stack([_pick(untrained.mean(name), heads) for untrained in null])
        centre, spread = values.mean(axis=0), 3.0 * values.std(axis=0, ddof=1)
        unlike |= (low > centre + spread) | (high < centre - spread)
    return unlike


def _pick(array: np.ndarray, heads: Sequence[HeadId]) -> Float[np.ndarray, " operated"]:
    return np.array([array[head] for head in heads])
