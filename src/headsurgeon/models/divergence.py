"""How far one model's predictions are from another's, in blocks of the vocabulary.

Both have one head, so their last hidden states are all that differs. The vocabulary is read
twice: once for the sums, once for the gradient, which is then the head's rows weighted by the
*difference* of the two distributions. Each distribution by itself would be rounded, in 16 bit, by
more than they differ.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from headsurgeon.errors import StateError
from headsurgeon.models.token_loss import BLOCK_BYTES, LanguageModelHead, language_model_head


def divergence(
    model: PreTrainedModel,
    hidden: Float[Tensor, "token hidden"],
    reference: Float[Tensor, "token hidden"],
) -> Float[Tensor, ""]:
    """Σ over tokens of KL(p ‖ q), nats; p is predicted from `reference`, q from `hidden`.

    The gradient is that of `hidden` alone.

    Args:
        model: whose head predicts.
        hidden, reference: last hidden states, as the head takes them.

    Raises:
        StateError: the head is trainable; there is no gradient for it here.
    """
    trained = any(value.requires_grad for value in model.get_output_embeddings().parameters())
    if trained and torch.is_grad_enabled():
        raise StateError(
            "the divergence in blocks has no gradient for the language-model head; freeze the head"
        )
    total: Tensor = _Divergence.apply(hidden, reference, language_model_head(model))
    return total


class _Divergence(torch.autograd.Function):
    """Σ KL, with the gradient of the hidden states computed on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, reference: Tensor, head: LanguageModelHead) -> Tensor:
        size = max(1, BLOCK_BYTES // (4 * max(1, len(hidden))))
        parts = [head.part(start, start + size) for start in range(0, len(head.weight), size)]
        own, target = _Total.of(hidden), _Total.of(reference)
        apart = torch.zeros(len(hidden), 1, device=hidden.device)
        for part in parts:
            now, before = part.logits(hidden), part.logits(reference)
            own.add(now)
            weights, shrink = target.add(before)
            apart = apart * shrink + (weights * (before - now)).sum(-1, keepdim=True)
        result = apart / target.total - target.log() + own.log()
        if ctx.needs_input_grad[0]:
            gradient = torch.zeros_like(hidden, dtype=torch.float32)
            for part in parts:
                now, before = part.logits(hidden), part.logits(reference)
                slope = part.slope(now)
                difference = (now - own.log()).exp_().sub_((before - target.log()).exp_())
                bent = difference if slope is None else difference.mul_(slope)
                gradient += bent.to(part.weight.dtype) @ part.weight
            ctx.save_for_backward(gradient.to(hidden.dtype))
        return result.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer.to(gradient.dtype), None, None


class _Total:
    """Σ exp(logit) of every token so far, as a largest logit and the sum above it."""

    def __init__(self, largest: Tensor) -> None:
        self.largest = largest
        self.total = torch.zeros_like(largest)

    @classmethod
    def of(cls, hidden: Tensor) -> "_Total":
        return cls(hidden.new_full((len(hidden), 1), -torch.inf, dtype=torch.float32))

    def add(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Takes in a block; returns exp(logit − largest) of it and what earlier sums shrink by."""
        higher = torch.maximum(self.largest, logits.amax(-1, keepdim=True))
        shrink = (self.largest - higher).exp()
        self.largest = higher
        weights = (logits - higher).exp_()
        self.total = self.total * shrink + weights.sum(-1, keepdim=True)
        return weights, shrink

    def log(self) -> Tensor:
        return self.largest + self.total.log()
