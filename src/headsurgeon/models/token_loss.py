"""The loss of each token: cross-entropy without ever holding the logits of the whole vocabulary.

The head of BLOOM has 250,880 rows: fp32 logits of 512 tokens take 514 MB. Here the vocabulary is
read once in blocks, as fused attention reads keys: with a running maximum and sum
per token, and with the gradient of the hidden state, which is a mean of the head's rows weighted by
the probabilities and is rescaled whenever a larger logit turns up. Blocks of the vocabulary rather
than of the tokens, so that every product has many rows and the head is read once. The head itself
is taken to be frozen; where it is trained, the logits are held.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from headsurgeon.arch import layout_for
from headsurgeon.models.weights import weight_of

# logits held at a time, bytes of fp32
BLOCK_BYTES = 16 << 20


@dataclass(frozen=True)
class LanguageModelHead:
    """The frozen language-model head or a part of it, and what the family does to its output."""

    weight: Tensor
    bias: Tensor | None
    factor: float
    softcap: float | None

    def part(self, start: int, stop: int) -> "LanguageModelHead":
        """The rows of some tokens of the vocabulary."""
        bias = None if self.bias is None else self.bias[start:stop]
        return replace(self, weight=self.weight[start:stop], bias=bias)

    def logits(self, hidden: Float[Tensor, "token hidden"]) -> Float[Tensor, "token vocabulary"]:
        """Final logits, fp32."""
        return self.bent(functional.linear(hidden, self.weight, self.bias).float())

    def bent(self, logits: Tensor) -> Tensor:
        """What the family makes of the head's output; may change it in place."""
        if self.factor != 1.0:
            logits *= self.factor
        return logits if self.softcap is None else self.softcap * (logits / self.softcap).tanh()

    def slope(self, logits: Tensor) -> Tensor | float | None:
        """Derivative of the logits by the head's output; None where it is 1 throughout."""
        if self.softcap is None:
            return None if self.factor == 1.0 else self.factor
        return self.factor * (1.0 - (logits / self.softcap).square())


def language_model_head(model: PreTrainedModel) -> LanguageModelHead:
    """The head of a model, and what its family does to the output."""
    layout = layout_for(model.config)
    module = model.get_output_embeddings()
    bias = getattr(module, "bias", None)
    return LanguageModelHead(
        weight_of(module, dtype=model.dtype), bias, layout.logit_factor, layout.logit_softcap
    )


def next_token_loss(
    model: PreTrainedModel, tokens: Int[Tensor, "batch length"]
) -> Float[Tensor, ""]:
    """Summed loss over the batch·(length − 1) predicted tokens, nats; equals the model's own loss.

    A sum, so that batches of unequal size are weighted by tokens when the caller divides once.
    Where the head itself is trained, its gradient takes the logits of the whole vocabulary.
    """
    hidden, labels = _hidden_and_labels(model, tokens)
    module = model.get_output_embeddings()
    trainable = any(parameter.requires_grad for parameter in module.parameters())
    if trainable and torch.is_grad_enabled():
        logits = language_model_head(model).bent(module(hidden).float())
        return functional.cross_entropy(logits, labels, reduction="sum")
    loss: Tensor = _LossInBlocks.apply(hidden, language_model_head(model), labels)
    return loss


@torch.no_grad()
def token_nll(
    model: PreTrainedModel, tokens: Int[Tensor, "batch length"]
) -> Float[Tensor, "batch predicted"]:
    """Negative log-likelihood of every token but the first of each window, nats, fp32."""
    hidden, labels = _hidden_and_labels(model, tokens)
    nll, _ = _scan(hidden, language_model_head(model), labels, with_gradient=False)
    return nll.view(len(tokens), -1)


@torch.no_grad()
def continuation_nll(
    model: PreTrainedModel, tokens: Int[Tensor, "batch length"]
) -> Float[Tensor, "batch predicted"]:
    """As `token_nll`, of windows whose last token the model need not, or cannot, read."""
    hidden: Tensor = model.base_model(input_ids=tokens[:, :-1], use_cache=False)[0]
    flat = hidden.reshape(-1, hidden.shape[-1])
    labels = tokens[:, 1:].reshape(-1)
    nll, _ = _scan(flat, language_model_head(model), labels, with_gradient=False)
    return nll.view(len(tokens), -1)


def _hidden_and_labels(
    model: PreTrainedModel, tokens: Int[Tensor, "batch length"]
) -> tuple[Float[Tensor, "predicted hidden"], Int[Tensor, " predicted"]]:
    hidden: Tensor = model.base_model(input_ids=tokens, use_cache=False)[0]
    return hidden[:, :-1].reshape(-1, hidden.shape[-1]), tokens[:, 1:].reshape(-1)


def _scan(
    hidden: Float[Tensor, "predicted hidden"],
    head: LanguageModelHead,
    labels: Int[Tensor, " predicted"],
    with_gradient: bool,
) -> tuple[Float[Tensor, " predicted"], Float[Tensor, "predicted hidden"] | None]:
    """−log p(label) of every token and, if asked for, its gradient by the hidden state, fp32."""
    largest = hidden.new_full((len(hidden), 1), -torch.inf, dtype=torch.float32)
    total = torch.zeros_like(largest)
    label_score = torch.zeros_like(largest)
    # Σ exp(logit − largest)·slope·row of the head
    weighted = torch.zeros_like(hidden, dtype=torch.float32) if with_gradient else None
    size = max(1, BLOCK_BYTES // (4 * len(hidden)))
    for start in range(0, len(head.weight), size):
        part = head.part(start, start + size)
        logits = part.logits(hidden)
        slope = part.slope(logits) if with_gradient else None
        place = labels[:, None] - start
        here = (place >= 0) & (place < len(part.weight))
        label_score = torch.where(
            here, logits.gather(1, place.clamp(0, len(part.weight) - 1)), label_score
        )
        higher = torch.maximum(largest, logits.amax(-1, keepdim=True))
        shrink = (largest - higher).exp()
        largest = higher
        weights = logits.sub_(largest).exp_()
        total = total * shrink + weights.sum(-1, keepdim=True)
        if weighted is not None:
            bent = weights if slope is None else weights.mul_(slope)
            weighted.mul_(shrink).add_(bent.to(part.weight.dtype) @ part.weight)
    nll = (largest + total.log() - label_score).squeeze(-1)
    if weighted is None:
        return nll, None
    own = head.weight[labels].float()
    slope = head.slope(label_score)
    return nll, weighted.div_(total).sub_(own if slope is None else own.mul_(slope))


class _LossInBlocks(torch.autograd.Function):
    """Σ −log p(label), with the gradient of the hidden states computed on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: LanguageModelHead, labels: Tensor) -> Tensor:
        nll, gradient = _scan(hidden, head, labels, ctx.needs_input_grad[0])
        if gradient is not None:
            ctx.save_for_backward(gradient.to(hidden.dtype))
        return nll.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer.to(gradient.dtype), None, None
