"""KL(untouched ‖ operated) on other text: what the model said there is to stay what it says."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, no_grad

from headsurgeon.attention.choice import attending
from headsurgeon.data import Windows
from headsurgeon.errors import SettingsError
from headsurgeon.models.divergence import divergence
from headsurgeon.models.forward import batches, evaluating
from headsurgeon.operation.learner import Learner
from headsurgeon.training.contexts import computing
from headsurgeon.training.schedule import windows_in_order
from headsurgeon.training.settings import TrainSettings
from headsurgeon.training.untouched import untouched

# last hidden states of the untouched model that are held, on the CPU
MOST_BYTES = 2**31


class Anchor:
    """A term of the loss; see `losses.Term`.

    The untouched model runs once, before training: its last hidden states are kept on the CPU, and
    the head, which both share, turns them into predictions block by block. Made while what is
    trained has the precision that it was given. The untouched model runs without dropout, the
    operated one as it trains.

    Raises:
        SettingsError: hidden states of more than 2 GiB, or a head that is trained itself.
    """

    name = "anchor"

    def __init__(self, learner: Learner, settings: TrainSettings, windows: Windows) -> None:
        head = learner.model.get_output_embeddings()
        if any(value.requires_grad for value in head.parameters()):
            raise SettingsError(
                "anchor: the language-model head is trained, but the untouched model is to predict "
                "with the same one; leave anchor at 0"
            )
        self.coefficient = settings.anchor
        self.tokens_per_step = settings.anchor_batch * windows.length
        self._learner = learner
        self._settings = settings
        self._tokens = windows.tokens
        model = learner.model
        size = windows.tokens.numel() * learner.layout.hidden * model.dtype.itemsize
        if size > MOST_BYTES:
            raise SettingsError(
                f"anchor: hidden states of {windows.tokens.numel():,} tokens take "
                f"{size / 2**30:.1f} GiB, and {MOST_BYTES / 2**30:g} are kept at most; give fewer "
                "windows"
            )
        parts = []
        with (
            untouched(learner),
            no_grad(),
            evaluating(model),
            attending(model, settings.attention, training=True),
            computing(model, settings),
        ):
            for batch in batches(windows.tokens):
                parts.append(self._hidden(batch).cpu())
        self._reference = torch.cat(parts)

    def watching(self) -> AbstractContextManager[None]:
        """Nothing: training batches are none of its business."""
        return nullcontext()

    def of_batch(self) -> None:
        """Nothing."""

    def apart(self, step: int) -> Iterator[Tensor]:
        """Parts of the mean KL over the step's windows, nats per predicted token, one at a time."""
        settings, model = self._settings, self._learner.model
        first = step * settings.anchor_batch
        windows = torch.from_numpy(
            windows_in_order(first, settings.anchor_batch, settings.seed, len(self._tokens))
        )
        predicted = len(windows) * (self._tokens.shape[1] - 1)
        for part in windows.split(settings.batch_size):
            with computing(model, settings):
                hidden = self._hidden(self._tokens[part])
                reference = self._reference[part].to(hidden.device)
                loss = divergence(model, hidden.flatten(0, 1), reference.flatten(0, 1)) / predicted
            yield loss

    def _hidden(self, tokens: Tensor) -> Tensor:
        """Last hidden states at all positions that predict a token of the window."""
        model = self._learner.model
        hidden: Tensor = model.base_model(input_ids=tokens.to(model.device), use_cache=False)[0]
        return hidden[:, :-1]
