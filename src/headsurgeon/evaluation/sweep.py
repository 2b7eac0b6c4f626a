"""The losses of a run at every evaluation: the best step on dev text, and what it is on test."""

from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field, computed_field, model_validator

from headsurgeon.evaluation.loss_curve import LossCurve, Minimum, Onset, minimum_of, onset_of
from headsurgeon.records import Finite, Record
from headsurgeon.results import Number, Result
from headsurgeon.scores import Estimate

# of texts that neither train nor choose: the test split, and texts given whole
REPORTED_SPLITS = ("test", "none")


class Reported(Record):
    """What the step chosen on dev text is on a text that did not choose it.

    Attributes:
        name: of the text.
        loss, untouched: at that step, and of the untouched model, nats per token.
        change: the one minus the other, paired over documents.
    """

    name: str
    loss: Finite
    untouched: Number
    change: Estimate


class Sweep(Result):
    """Losses along a run; the step is chosen on dev text and reported on other texts.

    Attributes:
        run: what the run is called in tables.
        model: id of the model.
        steps: of the evaluations, ascending; step 0 is the model operated on and not trained.
        steps_per_epoch: of one pass over the training text; NaN where that is not known.
        dev: the loss on dev text.
        probes: the losses on other texts, which decided nothing.
    """

    kind: ClassVar[str] = "sweep"
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    run: str
    model: str
    steps: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    steps_per_epoch: Number = float("nan")
    dev: LossCurve
    probes: tuple[LossCurve, ...] = ()

    @model_validator(mode="after")
    def _of_one_run(self) -> "Sweep":
        if any(len(curve.loss) != len(self.steps) for curve in (self.dev, *self.probes)):
            raise ValueError("expected a loss at each step")
        if any(later <= early for early, later in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("expected steps that rise")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def minimum(self) -> Minimum:
        """Where the loss on dev text is lowest."""
        return minimum_of(self.dev, self.steps)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def onset(self) -> Onset:
        """From where on the loss on dev text is worse than at its minimum for good."""
        return onset_of(self.dev, self.steps)

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def probe_minima(self) -> dict[str, Minimum]:
        """Where the loss on each other text is lowest; they choose nothing."""
        return {curve.name: minimum_of(curve, self.steps) for curve in self.probes}

    @computed_field  # type: ignore[prop-decorator]
    @cached_property
    def reported(self) -> tuple[Reported, ...]:
        """The step of the minimum on every probe text of the test split, or given whole."""
        place = self.steps.index(self.minimum.step)
        return tuple(
            Reported(
                name=curve.name,
                loss=float(curve.loss[place]),
                untouched=curve.untouched,
                change=curve.against_untouched(place),
            )
            for curve in self.probes
            if curve.split in REPORTED_SPLITS
        )
