"""What is measured of every model of a study: losses, with and without its heads, and the heads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedModel

from headsurgeon.data import Texts, Windows
from headsurgeon.evaluation import StatsAndAblation, ablate, evaluate
from headsurgeon.head_stats import HeadStats
from headsurgeon.heads import HeadId
from headsurgeon.measurement import measure
from headsurgeon.models.forward import OnWindows
from headsurgeon.planning import AblationMode
from headsurgeon.study.cell_parts import HeadTable, Scored
from headsurgeon.study.material import first_of


@dataclass(frozen=True, eq=False)
class Scores:
    """Losses and heads of one model, by text.

    Attributes:
        scored: losses as the result file holds them.
        conditions: statistics of the heads and what ablating (`zero`) the given ones costs.
    """

    scored: dict[str, Scored]
    conditions: dict[str, StatsAndAblation]

    @property
    def heads(self) -> dict[str, HeadTable]:
        """The statistics as the result file holds them."""
        return {name: head_table(each.stats) for name, each in self.conditions.items()}


def score(
    model: PreTrainedModel,
    texts: Mapping[str, Windows | Texts],
    heads: Sequence[HeadId],
    *,
    statistics: int,
    modes: Sequence[AblationMode] = ("zero",),
    on_windows: OnWindows | None = None,
) -> Scores:
    """Scores a model on every text.

    Args:
        texts: test windows by name.
        heads: the heads whose ablation is priced.
        statistics: how many of the windows heads are measured on.
        modes: how the heads are ablated; `zero` among them.
        on_windows: as for `evaluate`. The windows are read once, and once for each mode and for
            the means of `mean`; those of the statistics once more.
    """
    scored: dict[str, Scored] = {}
    conditions: dict[str, StatsAndAblation] = {}
    for name, windows in texts.items():
        baseline = evaluate(model, windows, on_windows=on_windows)
        ablations = {
            mode: ablate(
                model,
                heads,
                windows,
                mode=mode,
                singles=False,
                baseline=baseline,
                on_windows=on_windows,
            )
            for mode in modes
        }
        scored[name] = Scored.of(baseline, {mode: each.ablated for mode, each in ablations.items()})
        stats = measure(model, first_of(windows, statistics), on_windows=on_windows)
        conditions[name] = StatsAndAblation(stats, ablations["zero"])
    return Scores(scored, conditions)


def head_table(stats: HeadStats) -> HeadTable:
    """The statistics that tables and maps show, to six digits."""
    return HeadTable(
        **{
            name: tuple(
                tuple(None if np.isnan(value) else float(f"{value:.6g}") for value in row)
                for row in stats.mean(name)
            )
            for name in HeadTable.model_fields
        }
    )
