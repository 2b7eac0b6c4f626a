"""A model's own forward pass, compared once with what its layout says that it computes.

Everything that is measured rests on two descriptions: what attention makes of queries, keys and
values, and what the head makes of hidden states. A hook, a changed attribute or a replaced table of
biases computes something else in silence, so both are compared on the beginning of one window. That
is done again where hooks on the head, numbers of modules or the configuration have changed.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.arch.identity import foreign_hooks
from headsurgeon.arch.layout import Observed
from headsurgeon.attention.blocked_statistics import masked
from headsurgeon.attention.choice import in_16_bit
from headsurgeon.attention.split_heads import split_heads
from headsurgeon.errors import ModelError
from headsurgeon.measurement.attention_interface import listening
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.projection_hooks import capturing
from headsurgeon.models.forward import evaluating, model_id
from headsurgeon.models.token_loss import token_nll

# tokens of a window on which a model is compared: few, for the sake of time and of the logits
_TOKENS = 64
OBSERVE: dict[Observed, Callable[..., AbstractContextManager[None]]] = {
    "projections": capturing,
    "interface": listening,
}
# by what was compared, on how many tokens
_agreed: WeakKeyDictionary[PreTrainedModel, dict[Hashable, int]] = WeakKeyDictionary()


def check_own_attention(
    model: PreTrainedModel, layout: Layout, window: Int[Tensor, "1 length"]
) -> None:
    """Checks that attention gives what queries, keys, values and the layout say, in every layer.

    Raises:
        ModelError: another output of a head; names the layer.
    """
    # hooks in attention are called, or refused where the layout is asked for
    mark = ("attention", layout, _numbers(model))
    ids = window[:, :_TOKENS].to(model.device)
    if ids.shape[1] <= _agreed.setdefault(model, {}).get(mark, 0):
        return
    bias = layout.key_bias(ids.shape[1], model.device)
    own: dict[int, Tensor] = {}
    finite: list[bool] = []
    # both from the same queries, keys and values; in 16 bit scores are rounded before the softmax
    tolerance = 0.2 if _coarse(model) else 1e-3

    def on_layer(layer: int, capture: LayerCapture) -> None:
        with torch.autocast(model.device.type, enabled=False):
            apart = _difference(capture, own.pop(layer), layout, bias)
        # what is not finite is refused by whoever measures, in words of its own
        finite.append(bool(apart.isfinite().all()))
        if not bool(((apart <= tolerance) | ~apart.isfinite()).all()):
            raise ModelError(
                f"{model_id(model)}: attention in layer {layer} computes something else than its "
                "family's description says (the output of a head differs by "
                f"{float(apart.nan_to_num().max()):.3g} of the values' size); a hook, or something "
                "changed after loading: undo it"
            )

    with torch.no_grad(), evaluating(model), ExitStack() as hooks:
        for layer in layout.attention_layers:
            # before all others: an ablation, too, begins where attention ends
            handle = model.get_submodule(layout.output.path(layer)).register_forward_pre_hook(
                lambda module, inputs, layer=layer: own.update({layer: inputs[0].detach()}),
                prepend=True,
            )
            hooks.callback(handle.remove)
        hooks.enter_context(OBSERVE[layout.observed](model, layout, on_layer))
        model.base_model(input_ids=ids, use_cache=False)
    if all(finite):
        _agreed[model][mark] = ids.shape[1]


def check_own_loss(model: PreTrainedModel, window: Int[Tensor, "1 length"]) -> None:
    """Checks that the model's own loss is the one we take from hidden states and head.

    Raises:
        ModelError: the model's own logits give another loss.
    """
    hooks = {**foreign_hooks(model), **foreign_hooks(model.get_output_embeddings())}
    mark = ("loss", tuple(hooks), _numbers(model))
    ids = window[:, :_TOKENS].to(model.device)
    if ids.shape[1] <= _agreed.setdefault(model, {}).get(mark, 0):
        return
    with torch.no_grad(), evaluating(model):
        logits = model(input_ids=ids, use_cache=False).logits.float()
        own = float(functional.cross_entropy(logits[0, :-1], ids[0, 1:]))
        ours = float(token_nll(model, ids).mean())
    # both from the same forward pass: what differs is the order in which the head is summed up
    tolerance = 5e-2 if _coarse(model) else 1e-3
    if abs(own - ours) > tolerance * max(1.0, abs(own)):
        raise ModelError(
            f"{model_id(model)}: its own forward has a loss of {own:.4f} on {ids.shape[1]} tokens, "
            f"hidden states and language-model head as its family describes them {ours:.4f}; a "
            "hook or a changed attribute computes something else: remove it"
        )
    _agreed[model][mark] = ids.shape[1]


def _difference(
    capture: LayerCapture, own: Tensor, layout: Layout, bias: Float[Tensor, "head row"]
) -> Float[Tensor, " head"]:
    """Distance of each head's output from the described one, over the size of its values."""
    there = split_heads(own, layout.output, layout.head_dim).float()
    value = capture.value.float()
    distance = (_described(capture, layout, bias) - there).square().sum((0, 2, 3)).sqrt()
    size = value.square().sum((0, 2, 3)).sqrt()
    return distance / size.clamp(min=torch.finfo(torch.float32).tiny)


def _described(
    capture: LayerCapture, layout: Layout, bias: Float[Tensor, "head row"]
) -> Float[Tensor, "batch head row width"]:
    """What the description makes of queries, keys and values; written out, rows by keys."""
    terms = capture.score_terms
    rows = capture.query.shape[2]
    bias = bias.to(capture.query.device)
    scale = layout.scale if terms is None else terms.scale
    scores = capture.query.float() @ capture.key.float().transpose(-1, -2) * scale
    if terms is not None and terms.softcap is not None:
        scores = terms.softcap * torch.tanh(scores / terms.softcap)
    if layout.rounds_scores:
        held_in = capture.query.dtype
        scores = (scores + bias[:, None].to(held_in)).to(held_in).float()
    else:
        scores = scores + bias[:, None]
    if terms is not None and terms.mask is not None:
        scores = masked(scores, terms.mask[..., :rows])
    later = torch.ones(rows, rows, dtype=torch.bool, device=scores.device).triu(1)
    scores = scores.masked_fill(later, -torch.inf)
    if terms is not None and terms.sinks is not None:
        sink = terms.sinks.float()[:, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat((scores, sink), dim=-1)
    return scores.softmax(-1)[..., :rows] @ capture.value.float()


def _coarse(model: PreTrainedModel) -> bool:
    """Whether products are rounded to 16 bit or thereabouts."""
    tensor_float = model.device.type != "cpu" and torch.get_float32_matmul_precision() != "highest"
    return in_16_bit(model) or tensor_float


def _numbers(model: nn.Module) -> int:
    """A hash of the plain numbers that the modules hold; another one when one was changed."""
    return hash(
        tuple(
            (name, key, value)
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, bool | int | float) and key != "training"
        )
    )
