"""Cross-entropy of next tokens without ever holding the logits of all tokens.

The head of BLOOM has 250,880 rows: fp32 logits of 512 tokens take 514 MB. Here they are computed a
few rows at a time, and all that is kept of them is the gradient with respect to the hidden state.
The head itself is taken to be frozen.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from headsurgeon.arch import layout_for
from headsurgeon.errors import StateError
from headsurgeon.models.weights import weight_of

# logits held at a time, bytes of fp32
CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class _Head:
    """The frozen language-model head, and what the family does to its output."""

    weight: Tensor
    bias: Tensor | None
    factor: float
    softcap: float | None

    def slope(self, logits: Tensor) -> Tensor | float | None:
        """Derivative of the logits by the head's output; None where it is 1 throughout."""
        if self.softcap is None:
            return None if self.factor == 1.0 else self.factor
        return self.factor * (1.0 - (logits / self.softcap).square())


def _head(model: PreTrainedModel) -> _Head:
    layout = layout_for(model.config)
    module = model.get_output_embeddings()
    bias = getattr(module, "bias", None)
    return _Head(
        weight_of(module, dtype=model.dtype), bias, layout.logit_factor, layout.logit_softcap
    )


def next_token_loss(
    model: PreTrainedModel, tokens: Int[Tensor, "batch length"]
) -> Float[Tensor, ""]:
    """Summed loss over the batch·(length − 1) predicted tokens, nats; equals the model's own loss.

    A sum, so that batches of unequal size are weighted by tokens when the caller divides once.

    Raises:
        StateError: the head is trainable; this loss has no gradient for it.
    """
    hidden, labels = _hidden_and_labels(model, tokens)
    head = model.get_output_embeddings()
    trainable = [parameter for parameter in head.parameters() if parameter.requires_grad]
    if trainable and torch.is_grad_enabled():
        raise StateError(
            "the chunked loss has no gradient for the language-model head; freeze the head, or use "
            "model(input_ids, labels=…)"
        )
    loss: Tensor = _ChunkedLoss.apply(hidden, _head(model), labels)
    return loss


@torch.no_grad()
def token_nll(
    model: PreTrainedModel, tokens: Int[Tensor, "batch length"]
) -> Float[Tensor, "batch predicted"]:
    """Negative log-likelihood of every token but the first of each window, nats, fp32."""
    hidden, labels = _hidden_and_labels(model, tokens)
    head = _head(model)
    pieces = [
        functional.cross_entropy(_logits(piece, head), wanted, reduction="none")
        for piece, wanted in _chunks(hidden, labels, len(head.weight))
    ]
    return torch.cat(pieces).view(len(tokens), -1)


def _hidden_and_labels(
    model: PreTrainedModel, tokens: Int[Tensor, "batch length"]
) -> tuple[Float[Tensor, "predicted hidden"], Int[Tensor, " predicted"]]:
    hidden: Tensor = model.base_model(input_ids=tokens, use_cache=False)[0]
    return hidden[:, :-1].reshape(-1, hidden.shape[-1]), tokens[:, 1:].reshape(-1)


def _chunks(hidden: Tensor, labels: Tensor, vocabulary: int) -> list[tuple[Tensor, Tensor]]:
    rows = max(1, CHUNK_BYTES // (4 * vocabulary))
    return list(zip(hidden.split(rows), labels.split(rows), strict=True))


def _logits(hidden: Tensor, head: _Head) -> Tensor:
    logits = functional.linear(hidden, head.weight, head.bias).float()
    if head.factor != 1.0:
        logits *= head.factor
    return logits if head.softcap is None else head.softcap * (logits / head.softcap).tanh()


class _ChunkedLoss(torch.autograd.Function):
    """Σ −log p(label), with the gradient of the hidden states computed on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: _Head, labels: Tensor) -> Tensor:
        gradients: list[Tensor] = []
        total = hidden.new_zeros((), dtype=torch.float32)
        for piece, wanted in _chunks(hidden, labels, len(head.weight)):
            logits = _logits(piece, head)
            slope = head.slope(logits) if ctx.needs_input_grad[0] else None
            normaliser = logits.logsumexp(-1, keepdim=True)
            total += (normaliser.squeeze(-1) - logits.gather(1, wanted[:, None]).squeeze(-1)).sum()
            if ctx.needs_input_grad[0]:
                # d loss / d logits = softmax − one-hot, in place of the logits
                logits.sub_(normaliser).exp_()
                logits.scatter_add_(1, wanted[:, None], logits.new_full((len(wanted), 1), -1.0))
                raw = logits if slope is None else logits.mul_(slope)
                gradients.append((raw.to(head.weight.dtype) @ head.weight).to(hidden.dtype))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer.to(gradient.dtype), None, None
