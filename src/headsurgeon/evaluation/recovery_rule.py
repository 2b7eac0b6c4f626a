"""Which heads recovered — in function, not just in mass.

A random head is not sick: "mass fell below 0.5 after reinitialisation" is true before any training.
So a head counts as recovered when three things hold:

1. it left the sick class: sick in the stock model on at least one corpus measured, on none now;
2. it differs from an untrained head: on every corpus its interval in mass, entropy or distance lies
   outside what the same head shows when it is reinitialised and not trained, judged over several
   seeds and corrected for the number of heads and statistics looked at;
3. the revived set works: on every corpus ablating it costs loss, and more loss than ablating the
   same set in the stock model, both with the whole interval above 0.

Heads reinitialised and not trained count as 0 recovered: with the paper's start their output is
zero, so ablating them costs exactly nothing and 3 fails; with any other start 2 fails, up to the
5 % of families in which chance alone takes one of them out of the null's spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from pydantic import computed_field, model_validator
from transformers import PreTrainedModel

from headsurgeon.arguments import checked
from headsurgeon.attention_kinds import AttentionChoice
from headsurgeon.bootstrap import mean_interval
from headsurgeon.data import Texts, Windows
from headsurgeon.diagnosis import Thresholds
from headsurgeon.errors import StateError
from headsurgeon.evaluation.ablation import Ablation, ablate
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.models.forward import OnWindows
from headsurgeon.operation import FullLearner, Patient, operate
from headsurgeon.records import HeadName
from headsurgeon.results import Array, Result
from headsurgeon.scores import Estimate, Evaluation, difference_of_differences
from headsurgeon.starts import choose_init, choose_output_start

COMPARED = ("first_token_mass", "entropy", "mean_distance")
# of the untrained heads that revived ones are compared with
NULL_SEEDS = (101, 102, 103, 104, 105)
# chance, over all heads and statistics together, that an untrained head seems to differ
CHANCE = 0.05


@runtime_checkable
class Means(Protocol):
    """What a null is judged by: `HeadStats`, or what was kept of it."""

    def mean(self, name: str) -> Float[np.ndarray, "layer head"]:
        """The mean of a statistic over windows, for every head."""
        ...


@dataclass(frozen=True, eq=False)
class StatsAndAblation:
    """What was measured of a model on one corpus: its heads, and a set of them ablated.

    Attributes:
        stats: statistics of all heads of the model.
        ablation: what ablating the set costs.
    """

    stats: HeadStats
    ablation: Ablation


class Recovery(Result):
    """What an operation brought back.

    Attributes:
        heads: the operated heads, in order.
        was_sick: which of them were sick in the stock model on some corpus.
        left_sick: which of these are sick on no corpus now — all the paper asks.
        unlike_null: which differ from an untrained head on every corpus.
        stock, revived: per corpus, what ablating the set costs before and after.
        function: per corpus, the cost after minus the cost before, nats per token.
        null: per corpus, the mean over seeds of the untrained heads' mass, fraction.
    """

    kind: ClassVar[str] = "recovery"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    heads: tuple[HeadName, ...]
    was_sick: Annotated[Bool[np.ndarray, " operated"], Array()]
    left_sick: Annotated[Bool[np.ndarray, " operated"], Array()]
    unlike_null: Annotated[Bool[np.ndarray, " operated"], Array()]
    stock: tuple[Ablation, ...]
    revived: tuple[Ablation, ...]
    function: tuple[Estimate, ...]
    null: tuple[Annotated[Float[np.ndarray, " operated"], Array()], ...]

    @model_validator(mode="after")
    def _of_all_heads_and_corpora(self) -> "Recovery":
        heads = {len(self.heads), *map(len, (self.was_sick, self.left_sick, self.unlike_null))}
        corpora = {len(self.stock), len(self.revived), len(self.function), len(self.null)}
        if len(heads | set(map(len, self.null))) > 1 or len(corpora) > 1:
            raise ValueError("expected one entry for each head, and for each corpus")
        return self

    @property
    def functional(self) -> bool:
        """Whether on every corpus the revived set does work, and more than the stock set did."""
        works = all(ablation.joint.above_zero for ablation in self.revived)
        return bool(self.function) and works and all(gain.above_zero for gain in self.function)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def recovered(self) -> tuple[HeadName, ...]:
        """The heads for which all three conditions hold."""
        if not self.functional:
            return ()
        held = self.left_sick & self.unlike_null
        return tuple(head for head, yes in zip(self.heads, held, strict=True) if yes)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def operated(self) -> int:
        """Number of heads operated on."""
        return len(self.heads)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def null_mass(self) -> tuple[float, ...]:
        """Mean mass of the untrained heads, per corpus, fraction."""
        return tuple(float(mass.mean()) for mass in self.null)


def empirical_null(
    patient: Patient | FullLearner,
    windows: Windows | Texts,
    seeds: Sequence[int],
    *,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> list[HeadStats]:
    """The same heads reinitialised and not trained, measured once per seed.

    They start as the patient did; where its queries and keys were not drawn blindly (init `none`,
    say), as the paper's do, since weights that were kept or fitted are not untrained ones. The
    patient must be reverted, so that its model is the stock one; it is again afterwards.
    `on_windows` is told as by `measure`; the windows are read once for each seed.
    """
    init, start = untrained_start(patient.init, patient.output_start)
    measured = []
    for seed in seeds:
        untrained = operate(patient.model, patient.plan, seed=seed, init=init, output_start=start)
        try:
            stats = measure(patient.model, windows, attention=attention, on_windows=on_windows)
            measured.append(stats)
        finally:
            untrained.revert()
    return measured


def untrained_start(init: str, output_start: str) -> tuple[str, str]:
    """How heads start that are not trained, for comparison with heads that started like this.

    Raises:
        SettingsError: no such start.
    """
    qkv, output = choose_init(init), choose_output_start(output_start)
    if qkv.start.untrained and not output.start.calibrated:
        return qkv.name, output.name
    return "xavier_uniform_head", "zero_output"


@checked
def recovery(
    patient: Patient | FullLearner,
    windows: Windows | Texts | Sequence[Windows | Texts],
    *,
    null_seeds: Sequence[int] = NULL_SEEDS,
    sick_mass: float | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> Recovery:
    """Applies the rule above to a patient; afterwards the patient is merged.

    Args:
        patient: trained (or not), in any state.
        windows: one corpus or several; held-out text, at least two documents each.
        null_seeds: seeds of the untrained heads, at least two; their spread is what "differs" is
            judged by.
        sick_mass: mass above which a head is sick, fraction; by default as the plan says.
        attention: as for `evaluate`, for statistics and losses alike.
        on_windows: as for `evaluate`; the windows are read six times, and once for each null seed.

    Raises:
        StateError: the plan operates on nothing.
    """
    heads = patient.plan.operated
    if not heads:
        raise StateError("the plan operates on no head, so there is nothing to recover")
    corpora = [windows] if isinstance(windows, Windows | Texts) else list(windows)
    how: Any = {"attention": attention, "on_windows": on_windows}
    patient.revert()
    before = [measure_and_ablate(patient.model, heads, part, **how) for part in corpora]
    nulls = [empirical_null(patient, part, null_seeds, **how) for part in corpora]
    patient.merge()
    after = [measure_and_ablate(patient.model, heads, part, **how) for part in corpora]
    limit = patient.plan.limits.sink if sick_mass is None else sick_mass
    return recovery_from(before, after, nulls, heads, sick_mass=limit)


def measure_and_ablate(
    model: PreTrainedModel,
    heads: Sequence[HeadId],
    windows: Windows | Texts,
    *,
    measured: Windows | Texts | None = None,
    score: Evaluation | None = None,
    batch_size: int | None = None,
    attention: AttentionChoice = "auto",
    on_windows: OnWindows | None = None,
) -> StatsAndAblation:
    """Measures all heads of a model, and what ablating some of them costs.

    Args:
        windows: what the loss with and without the heads is measured on.
        measured: what the statistics are measured on; by default the same windows.
        score: the loss with them, if it is known already.
        batch_size: windows per forward pass; by default about 4,096 tokens.
        attention: as for `evaluate`.
        on_windows: as for `evaluate`; the windows are read twice, and once more for an unknown
            `score`.
    """
    how: Any = {"batch_size": batch_size, "attention": attention, "on_windows": on_windows}
    return StatsAndAblation(
        stats=measure(model, measured or windows, **how),
        ablation=ablate(model, heads, windows, singles=False, baseline=score, **how),
    )


def recovery_from(
    before: Sequence[StatsAndAblation],
    after: Sequence[StatsAndAblation],
    nulls: Sequence[Sequence[Means]],
    heads: Sequence[HeadId],
    *,
    sick_mass: float = Thresholds().sink,
) -> Recovery:
    """Applies the rule to what was measured, which is one entry per corpus.

    Args:
        before, after: the operated heads in the stock model, and in the repaired one.
        nulls: what `empirical_null` found on the windows of the statistics.
        heads: the operated heads.
        sick_mass: mass above which a head is sick, fraction.
    """
    limits = Thresholds(sink=sick_mass, dead=max(sick_mass, Thresholds().dead))
    was_sick = np.zeros(len(heads), dtype=bool)
    healthy_now = np.ones(len(heads), dtype=bool)
    unlike_null = np.ones(len(heads), dtype=bool)
    for old, new, null in zip(before, after, nulls, strict=True):
        was_sick |= limits.is_sick(_pick(old.stats.first_token_mass, heads))
        mass = _pick(new.stats.first_token_mass, heads)
        # of a mass that is no number nothing is known
        healthy_now &= np.isfinite(mass) & ~limits.is_sick(mass)
        unlike_null &= _unlike(new.stats, null, heads)
    stock = tuple(old.ablation for old in before)
    revived = tuple(new.ablation for new in after)
    return Recovery(
        heads=tuple(heads),
        was_sick=was_sick,
        left_sick=was_sick & healthy_now,
        unlike_null=unlike_null,
        stock=stock,
        revived=revived,
        function=tuple(_gain(new, old) for new, old in zip(revived, stock, strict=True)),
        null=tuple(
            _pick(np.mean([n.mean("first_token_mass") for n in null], axis=0), heads)
            for null in nulls
        ),
    )


def _gain(revived: Ablation, stock: Ablation) -> Estimate:
    return difference_of_differences(
        (revived.ablated, revived.baseline), (stock.ablated, stock.baseline)
    )


def _unlike(
    stats: HeadStats, null: Sequence[Means], heads: Sequence[HeadId]
) -> Bool[np.ndarray, " operated"]:
    """Whether a head's interval leaves the range in which one more untrained head would fall.

    That range is mean ± z·s·√(1 + 1/seeds), with z corrected (Bonferroni) for all heads and
    statistics. s is the larger of the head's own deviation over seeds and that pooled over heads:
    a handful of seeds tells little about a single head.
    """
    unlike = np.zeros(len(heads), dtype=bool)
    quantile = NormalDist().inv_cdf(1.0 - CHANCE / (2 * len(COMPARED) * len(heads)))
    margin = quantile * np.sqrt(1.0 + 1.0 / len(null))
    weights = stats.document_weights.sum(axis=1)
    for name in COMPARED:
        _, lowest, highest = mean_interval(stats.per_document(name), weights)
        values = np.stack([_pick(untrained.mean(name), heads) for untrained in null])
        own = values.std(axis=0, ddof=1)
        reach = margin * np.maximum(own, np.sqrt((own**2).mean()))
        centre = values.mean(axis=0)
        low, high = _pick(lowest, heads), _pick(highest, heads)
        differs = (low > centre + reach) | (high < centre - reach)
        # an infinite bound lies outside every range, and says nothing
        unlike |= differs & np.isfinite(low) & np.isfinite(high) & np.isfinite(centre)
    return unlike


def _pick(array: np.ndarray, heads: Sequence[HeadId]) -> Float[np.ndarray, " operated"]:
    return np.array([array[head] for head in heads])
