"""What training lowers: the loss on the training text, and the terms that settings add to it.

A new term is a class with what `Term` says, and its line in `terms_of`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from headsurgeon.data import Windows
from headsurgeon.errors import SettingsError
from headsurgeon.models.token_loss import next_token_loss
from headsurgeon.operation.learner import Learner
from headsurgeon.training.anchor import Anchor
from headsurgeon.training.balance import Balance
from headsurgeon.training.contexts import Stop, computing
from headsurgeon.training.settings import TrainSettings


@runtime_checkable
class Term(Protocol):
    """Something that is lowered besides the loss on the training text.

    Attributes:
        name: under which its value, without the coefficient, is logged at every step.
        coefficient: what it is multiplied by.
        tokens_per_step: tokens it reads in a step besides those of the training text.
    """

    name: str
    coefficient: float
    tokens_per_step: int

    def watching(self) -> AbstractContextManager[None]:
        """Open while a training batch runs, forward and backward."""

    def of_batch(self) -> Tensor | None:
        """Its value on the training batch that has just run forward; None if it has none."""

    def apart(self, step: int) -> Iterator[Tensor]:
        """Summands that need forward passes of their own; each is done with before the next."""


def terms_of(learner: Learner, settings: TrainSettings, anchor: Windows | None) -> list[Term]:
    """The terms whose coefficients are not 0.

    Raises:
        SettingsError: anchor windows without a coefficient, or the other way round; as `Balance`
            and `Anchor`.
    """
    terms: list[Term] = []
    if settings.balance > 0:
        terms.append(Balance(learner, settings))
    if (settings.anchor > 0) != (anchor is not None):
        raise SettingsError(
            "anchor: a coefficient above 0 and anchor windows belong together: settings.anchor is "
            f"{settings.anchor:g}, and {'no' if anchor is None else 'some'} windows were given"
        )
    if anchor is not None:
        terms.append(Anchor(learner, settings, anchor))
    return terms


def backward(
    learner: Learner,
    settings: TrainSettings,
    terms: Sequence[Term],
    step: int,
    tokens: Int[Tensor, "window length"],
    backpropagate: Callable[[Tensor], None],
    stop: Stop,
) -> dict[str, float]:
    """Leaves the gradient of one step in what is trained.

    Returns:
        `loss`, mean on `tokens`, nats per predicted token, and the value of every term. Where the
        user asked to stop meanwhile, they are incomplete, and so is the gradient.
    """
    model = learner.model
    predicted = tokens.numel() - len(tokens)
    values = {"loss": 0.0} | {term.name: 0.0 for term in terms}
    for batch in tokens.split(settings.batch_size):
        with ExitStack() as watching:
            for term in terms:
                watching.enter_context(term.watching())
            with computing(model, settings):
                loss = next_token_loss(model, batch.to(model.device)) / predicted
            objective = loss
            for term in terms:
                value = term.of_batch()
                if value is not None:
                    share = value * (len(batch) / len(tokens))
                    objective = objective + term.coefficient * share
                    values[term.name] += share.item()
            backpropagate(objective)
        values["loss"] += loss.item()
        if stop.requested:
            return values
    for term in terms:
        for summand in term.apart(step):
            backpropagate(term.coefficient * summand)
            values[term.name] += summand.item()
            if stop.requested:
                return values
    return values
