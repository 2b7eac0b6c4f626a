"""The head map of what a run logged, which has masses alone: no intervals, and no slopes."""

import numpy as np
from jaxtyping import Float

from headsurgeon.diagnosis.verdicts import Thresholds, verdicts_known
from headsurgeon.evaluation.redistribution import Redistribution
from headsurgeon.report.data import HeadView


def mass_view(title: str, found: Redistribution, mass: Float[np.ndarray, "layer head"]) -> HeadView:
    """Some of the masses of a run's heads; whether a head has little entropy is not said."""
    limits = Thresholds(sink=found.sick_mass, dead=max(found.sick_mass, Thresholds().dead))
    return bare_view(title, mass, verdicts_known(mass, None, limits), limits)


def bare_view(
    title: str,
    mass: Float[np.ndarray, "layer head"],
    verdicts: np.ndarray,
    limits: Thresholds,
) -> HeadView:
    """Masses and verdicts with nothing else known."""
    return HeadView(
        title,
        mass,
        verdicts,
        np.zeros(mass.shape, dtype=bool),
        np.zeros(mass.shape),
        np.full(mass.shape, np.nan),
        limits,
    )
