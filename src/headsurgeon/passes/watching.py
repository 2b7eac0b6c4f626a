"""Callbacks that follow the progress of a sequence of passes."""

from typing import Protocol, runtime_checkable

from transformers import PreTrainedModel

from headsurgeon.passes.result import Pass
from headsurgeon.planning import Plan
from headsurgeon.training import StepEvent


@runtime_checkable
class PassObserver(Protocol):
    """Told of every step; whoever raises stops the sequence, which can be resumed."""

    def measuring(self, what: str) -> None:
        """The model is being measured."""

    def planned(self, number: int, plan: Plan, model: PreTrainedModel) -> None:
        """A pass is about to operate on `model`, as it is now; not called when one is resumed."""

    def stepped(self, event: StepEvent) -> None:
        """An optimiser step was made."""

    def finished(self, latest: Pass) -> None:
        """A pass came to its end."""


class Silent:
    """An observer who tells nobody."""

    def measuring(self, what: str) -> None:
        """Nothing."""

    def planned(self, number: int, plan: Plan, model: PreTrainedModel) -> None:
        """Nothing."""

    def stepped(self, event: StepEvent) -> None:
        """Nothing."""

    def finished(self, latest: Pass) -> None:
        """Nothing."""
