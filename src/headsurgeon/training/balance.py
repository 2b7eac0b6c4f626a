"""The loss of sink-aware training (arXiv:2602.01203): heads of a layer are to take part alike.

There, the gate of a head at a token is what it leaves for others than the first one, 1 − the
probability on position 0; the importance I of a head is its mean gate; and what is added to the
loss is λ·Σ over layers of (heads − m)·CV²(I), with CV the standard deviation over the mean and the
m most important heads of each layer left out, so that heads which carry what was learned before
training are not pulled down. λ = 0.01 there for models that had been trained before.

What is the same here: the gate, the importance, CV² with its factor. What is not: only the slices
of the planned heads are trained, so the sum is over the layers that have some, and the other heads
of those layers are what these are to become like (that all heads rise together, "head pinning"
there, cannot happen to frozen ones); importance is taken over one forward pass; each pass chooses
its own m heads. It evens heads out, it does not open them: where all heads of a layer are asleep
alike, it is 0.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.attention.sink_gate import sink_gate
from headsurgeon.errors import SettingsError
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.measuring import OBSERVE
from headsurgeon.operation.learner import Learner
from headsurgeon.training.settings import TrainSettings


class Balance:
    """A term of the loss; see `losses.Term`.

    Raises:
        SettingsError: a model with learned sinks, where another gate would be needed, or more heads
            to leave out than a layer can spare.
    """

    name = "balance"
    tokens_per_step = 0

    def __init__(self, learner: Learner, settings: TrainSettings) -> None:
        layout = learner.layout
        if layout.learned_sinks:
            raise SettingsError(
                "balance counts what heads leave for others than the first token; in this family "
                "they fall asleep in a learned sink instead: leave balance at 0"
            )
        if settings.balance_shared > layout.heads - 2:
            raise SettingsError(
                f"balance_shared: {settings.balance_shared} of {layout.heads} heads left out leave "
                "none to compare; expected at most all but two"
            )
        self.coefficient = settings.balance
        self._shared = settings.balance_shared
        self._learner = learner
        self._layers = sorted({head.layer for head in learner.plan.operated})
        self._seen: dict[int, LayerCapture] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Open while a training batch runs, forward and backward."""

        def note(layer: int, capture: LayerCapture) -> None:
            if layer in self._layers:
                self._seen[layer] = capture

        layout = self._learner.layout
        with OBSERVE[layout.observed](self._learner.model, layout, note, detach=False):
            yield
        self._seen.clear()

    def of_batch(self) -> Float[Tensor, ""]:
        """Σ (heads − m)·CV² over the layers, of the forward pass just made."""
        layout, device = self._learner.layout, self._learner.model.device
        total = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):
            for layer in self._layers:
                capture = self._seen.pop(layer)
                rows, terms = capture.query.shape[2], capture.score_terms
                gate = sink_gate(
                    capture.query,
                    capture.key,
                    layout.key_bias(rows, device),
                    layout.scale if terms is None else terms.scale,
                    mask=None if terms is None else terms.mask,
                    softcap=None if terms is None else terms.softcap,
                )
                # later rows cannot see position 0, so they say nothing about it
                seeing = (layout.window(layer) or rows) - 1
                total = total + unevenness(gate[..., :seeing].mean((0, 2)), self._shared)
        return total

    def apart(self, step: int) -> Iterator[Tensor]:
        """Nothing: it needs no forward pass of its own."""
        return iter(())


def unevenness(importance: Float[Tensor, " head"], shared: int) -> Float[Tensor, ""]:
    """(heads − m)·CV² of the importances but the m largest; CV divides by the number of heads."""
    routed = importance.sort().values[: len(importance) - shared]
    return len(routed) * routed.var(correction=0) / routed.mean().square()
