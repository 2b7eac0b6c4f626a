"""What a model shows on calibration windows, for starts that look before they choose weights."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn
from transformers import PreTrainedModel

from headsurgeon.arch import Layout
from headsurgeon.attention.split_heads import split_heads
from headsurgeon.data import Windows
from headsurgeon.measurement.layer_capture import LayerCapture
from headsurgeon.measurement.measuring import OBSERVE
from headsurgeon.measurement.one_head_map import head_probabilities
from headsurgeon.models.forward import batches, check_windows, evaluating, usual_defaults
from headsurgeon.models.token_loss import next_token_loss


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class CalibrationRecord:
    """Which text a start looked at.

    Attributes:
        tokens: how many tokens, which count against a budget of training tokens; 0 where it
            looked at none.
        sha256: of their shape and ids; empty where it looked at none.
        corpus, split: where they are from; empty where nobody said.
    """

    tokens: Annotated[int, Field(ge=0, le=2**53)] = 0
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    corpus: str = ""
    split: str = ""

    @classmethod
    def of(cls, windows: Windows) -> "CalibrationRecord":
        """The record of these windows."""
        ids = windows.tokens.cpu().contiguous()
        digest = sha256(str(list(ids.shape)).encode() + ids.numpy().tobytes())
        return cls(ids.numel(), digest.hexdigest(), windows.corpus or "", windows.split or "")


@dataclass(frozen=True)
class Attended:
    """What the values of a layer's heads are made of, and what the loss asks of its output.

    Attributes:
        inputs: the layer's normalised input.
        attention: gives a head's attention, by window.
        gradient: of the summed loss by the output of the layer's output projection.
    """

    inputs: Float[Tensor, "window row hidden"]
    attention: Callable[[int], Iterator[Float[Tensor, "row key"]]]
    gradient: Float[Tensor, "window row hidden"]

    def values_read(self, head: int) -> Float[Tensor, "window row hidden"]:
        """The attention-weighted input of one head's values."""
        maps = self.attention(head)
        return torch.stack([attention @ x for attention, x in zip(maps, self.inputs, strict=True)])


class Calibration:
    """The model on calibration windows, in fp32: as it was, and layer by layer as it starts.

    What belongs to a layer is looked at when it is asked for, with the model as it then is: layers
    below have had their start, and the outputs of the operated heads of this layer and of those
    above are off. One layer's tensors are made at a time: tokens × hidden numbers each.

    Attributes:
        tokens: ids of the windows.
        mean_context: each head's mean output before the output projection, in the stock model.
        energy: each head's mean squared output there, summed over its width.
    """

    tokens: Int[Tensor, "window row"]
    mean_context: Float[Tensor, "layer head width"]
    energy: Float[Tensor, "layer head"]

    def __init__(self, model: PreTrainedModel, layout: Layout, windows: Windows) -> None:
        check_windows(windows.tokens, layout, model)
        self._model, self._layout = model, layout
        self.tokens = windows.tokens.to(model.device)
        self.mean_context, self.energy = self._outputs()

    def layer_input(self, layer: int) -> Float[Tensor, "window row hidden"]:
        """The input of a layer's queries, keys and values, which is normalised in most families."""
        return self._inputs_of(self._layout.query.path(layer))

    def token_vectors(self) -> Float[Tensor, "window row hidden"]:
        """A vector for each token that depends on nothing but which token it is.

        The input of the lowest layer, averaged over all places where a token stands: after a norm
        of the embedding, if there is one, and with learned positions averaged out.
        """
        vectors = self._inputs_of(self._layout.block(0))
        known, index = self.tokens.unique(return_inverse=True)
        flat = index.flatten()
        sums = vectors.new_zeros(len(known), vectors.shape[-1])
        sums.index_add_(0, flat, vectors.flatten(0, 1))
        means = sums / flat.bincount(minlength=len(known))[:, None]
        by_place: Tensor = means[index]
        return by_place

    def attended(self, layer: int) -> Attended:
        """The layer's input and attention, and the gradient at its output, with its heads as set.

        The loss is the next-token loss of the calibration windows, summed.
        """
        captures: list[LayerCapture] = []

        def keep(of_layer: int, capture: LayerCapture) -> None:
            if of_layer == layer:
                captures.append(capture)

        inputs: list[Tensor] = []
        gradients: list[Tensor] = []
        query = self._model.get_submodule(self._layout.query.path(layer))
        output = self._model.get_submodule(self._layout.output.path(layer))
        observe = OBSERVE[self._layout.observed]
        with (
            self._running(),
            observe(self._model, self._layout, keep),
            _listening(query, inputs),
            _probing(output) as probes,
        ):
            for batch in batches(self.tokens):
                with torch.enable_grad():
                    loss = next_token_loss(self._model, batch)
                gradients += torch.autograd.grad(loss, [probes.pop()])
        return Attended(
            inputs=torch.cat(inputs).float(),
            attention=lambda head: self._attention(captures, head),
            gradient=torch.cat(gradients).float(),
        )

    def _attention(
        self, captures: Sequence[LayerCapture], head: int
    ) -> Iterator[Float[Tensor, "row key"]]:
        bias = self._layout.key_bias(self.tokens.shape[1], self.tokens.device)[head]
        for capture in captures:
            held_in = capture.query.dtype if self._layout.rounds_scores else torch.float32
            for window in range(len(capture.query)):
                yield head_probabilities(capture, window, head, bias, self._layout.scale, held_in)

    def _outputs(self) -> tuple[Tensor, Tensor]:
        """Mean output and energy of every head."""
        layout, device = self._layout, self.tokens.device
        mean = torch.zeros(layout.layers, layout.heads, layout.head_dim, device=device)
        energy = torch.zeros(layout.layers, layout.heads, device=device)
        contexts: dict[int, list[Tensor]] = {layer: [] for layer in layout.attention_layers}
        paths = {layer: layout.output.path(layer) for layer in layout.attention_layers}
        handles = [
            self._model.get_submodule(path).register_forward_pre_hook(_keep(contexts[layer]))
            for layer, path in paths.items()
        ]
        try:
            with self._running():
                for batch in batches(self.tokens):
                    self._forward(batch)
                    for layer, kept in contexts.items():
                        context = split_heads(kept.pop(), layout.output, layout.head_dim).float()
                        mean[layer] += context.sum((0, 2))
                        energy[layer] += context.square().sum((0, 2, 3))
        finally:
            for handle in handles:
                handle.remove()
        return mean / self.tokens.numel(), energy / self.tokens.numel()

    def _inputs_of(self, path: str) -> Float[Tensor, "window row hidden"]:
        kept: list[Tensor] = []
        with self._running(), _listening(self._model.get_submodule(path), kept):
            for batch in batches(self.tokens):
                self._forward(batch)
        return torch.cat(kept).float()

    def _forward(self, batch: Int[Tensor, "batch row"]) -> None:
        self._model.base_model(input_ids=batch, use_cache=False)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No dropout, no trace, and no gradient but what is asked for."""
        trainable = [p for p in self._model.parameters() if p.requires_grad]
        with usual_defaults(), evaluating(self._model), torch.no_grad():
            try:
                self._model.requires_grad_(False)
                yield
            finally:
                for parameter in trainable:
                    parameter.requires_grad_(True)


def _keep(kept: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: Any = None) -> None:
        # layers are handed their hidden state by position or by name
        tensor = inputs[0] if inputs else named["hidden_states"]
        kept.append(tensor.detach())

    return hook


@contextmanager
def _listening(module: nn.Module, kept: list[Tensor]) -> Iterator[None]:
    """While open, what enters a module first is noted."""
    handle = module.register_forward_pre_hook(_keep(kept), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _probing(module: nn.Module) -> Iterator[list[Tensor]]:
    """While open, zeros are added to a module's output; their gradient is the output's."""
    probes: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        probes.append(torch.zeros_like(output, requires_grad=True))
        return output + probes[-1]

    handle = module.register_forward_hook(hook)
    try:
        yield probes
    finally:
        handle.remove()
