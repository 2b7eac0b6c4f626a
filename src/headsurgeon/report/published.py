"""What the paper shows of BLOOM, in the form in which our own figures are drawn.

It released none of its data: all of it was read off its figures, and says so wherever it is drawn.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from headsurgeon.diagnosis.verdicts import PAPER, verdicts_at
from headsurgeon.evaluation.redistribution import Redistribution, redistribution_from
from headsurgeon.paper.figure_data import (
    READ_OFF,
    READING_ERROR,
    Run,
    Size,
    change_from_figure,
    h5_curve_from_figure,
    mass_from_figure,
)
from headsurgeon.paper.literal_heads import head_list
from headsurgeon.paper.numbers import published, published_number
from headsurgeon.report.change_figures import ChangePanel
from headsurgeon.report.data import HeadView
from headsurgeon.report.mass_bins import mass_bins

OPERATED_MODEL: Size = "1b7"
_BLOOM_1B7 = "bigscience/bloom-1b7"
# the paper's name of each run's stage, and what stands above its map
STAGES: Mapping[Run, str] = {"curated": "pass 1 E3", "wikipedia": "Wikipedia E3", "c4": "C4 E3"}
_EPOCHS = (3, 6, 9, 12, 15)


def masses(size: Size, bins: int) -> Float[np.ndarray, " bin"]:
    """Heads of the stock model in equal parts of 0 to 1; of 1b7 in 50 parts those of figure 1."""
    exact = published(f"bigscience/bloom-{size}", "stock", f"histogram of mass in {bins} bins")
    if exact and isinstance(exact[0].value, tuple):
        return np.array(exact[0].value, dtype=np.float64)
    return mass_bins(mass_from_figure(size), bins).astype(np.float64)


def mass_view(size: Size) -> HeadView:
    """The stock model's map, figure 2; cells below its panel's label are unknown, and blank."""
    mass = mass_from_figure(size)
    none = np.zeros(mass.shape, dtype=bool)
    title = f"bloom-{size}\n{READ_OFF} 2"
    # of entropy the figure says nothing: a sick head is one by its mass alone
    verdicts = verdicts_at(mass, np.full(mass.shape, np.nan), PAPER)
    return HeadView(title, mass, verdicts, none, np.zeros(mass.shape), np.full(mass.shape, np.nan))


def changes(run: Run) -> ChangePanel:
    """The map of figure 3 of one of its runs, with the counts that the paper prints."""
    stage = STAGES[run]
    heads = head_list("bloom-1b7-pass1")
    operated, watched = np.zeros((2, *change_from_figure(run).shape), dtype=bool)
    for mask, names in ((operated, heads.operate), (watched, heads.watch)):
        for head in names:
            mask[head] = True
    found = _numbers(stage)
    outside = (
        f"outside: {found['outside drifted']:.0f} of 258 beyond 0.05 (169 can), "
        f"mean |Δ| {found['outside mean change']:.4f}"
    )
    watching = f"watched: {found['watched drifted']:.0f} of 18 beyond 0.05 (13 can)"
    if "watched mean change" in found:
        watching += f", mean |Δ| {found['watched mean change']:.4f}"
    title = f"{stage}, {READ_OFF} 3\n{outside}\n{watching}"
    return ChangePanel(title, change_from_figure(run), operated | watched, operated)


def watched(run: Run = "c4") -> Redistribution:
    """The watched heads of figure 3, in which S1's run is three epochs old."""
    heads, change = head_list("bloom-1b7-pass1"), change_from_figure(run)
    return redistribution_from(
        np.zeros(change.shape),
        change[None],
        [1],
        heads.operate,
        heads.watch,
        run=f"{STAGES[run]}, {READ_OFF} 3",
        model=_BLOOM_1B7,
        rounding=READING_ERROR,
    )


def columns(found: Redistribution) -> dict[int, list[tuple[float, float]]]:
    """Figure S2 at the steps of a run's own epochs; nothing where those are not known."""
    if not found.epochs or found.epochs[-1] <= 0.0:
        return {}
    per_epoch = found.steps[-1] / found.epochs[-1]
    shown = {}
    for head in range(9, 16):
        stage, quantity = "C4 E3, 6, 9, 12, 15", f"watched mean change of H{head}"
        value = published_number(_BLOOM_1B7, stage, quantity).value
        assert isinstance(value, tuple), "the paper has five epochs"
        points = zip(_EPOCHS, value, strict=True)
        within = [(epoch * per_epoch, float(mean)) for epoch, mean in points]
        shown[head] = [point for point in within if point[0] <= found.steps[-1]]
    return {head: points for head, points in shown.items() if points}


def losses() -> Float[np.ndarray, " step"]:
    """Figure 5 in nats per token, which is the logarithm of its perplexity."""
    return np.asarray(np.log(h5_curve_from_figure()))


def _numbers(stage: str) -> dict[str, float]:
    found = published(_BLOOM_1B7, stage)
    return {each.quantity: each.number for each in found if not isinstance(each.value, str | tuple)}
