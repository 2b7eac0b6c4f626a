"""Where each head lives in the parameters of a model, and which position bias it sees.

A layout is data: a family file reads the configuration and states the order of axes; nobody outside
`arch/` spells an attribute path.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from headsurgeon.errors import UnsupportedModel

Part = Literal["query", "key", "value", "output"]
Observed = Literal["projections", "interface"]
PARTS: tuple[Part, ...] = ("query", "key", "value", "output")


@dataclass(frozen=True)
class Block:
    """A run of indices along one axis of one parameter.

    Attributes:
        parameter: name within the model, as in `state_dict()`.
        axis: the axis the run lies on.
        start: first index.
        length: number of indices.
    """

    parameter: str
    axis: int
    start: int
    length: int

    def of(self, tensor: Tensor) -> Tensor:
        """The block as a view of the parameter it names."""
        return tensor.narrow(self.axis, self.start, self.length)


@dataclass(frozen=True)
class Projection:
    """One attention projection of every layer: a linear module and where each head lies in it.

    Attributes:
        module: path of the module, with `{layer}` in it.
        starts: first index of each head (query, output) or key/value head (key, value).
        axis: axis of the weight that heads lie on; 0 are the rows of `nn.Linear`.
        bias: whether the module has a bias that belongs to heads (never for the output).
    """

    module: str
    starts: tuple[int, ...]
    axis: int = 0
    bias: bool = True

    def path(self, layer: int) -> str:
        """Path of the module in one layer."""
        return self.module.format(layer=layer)


@dataclass(frozen=True)
class Layout:
    """Where every head of one model lives.

    Attributes:
        family: `model_type` of the configuration.
        layers: number of layers.
        heads: query heads per layer.
        kv_heads: key/value heads per layer.
        head_dim: width of one head.
        hidden: width of the residual stream.
        scale: factor on query·key before the softmax; a family may divide it further by layer.
        query, key, value, output: the four projections. Fused projections share a module.
        mlp_up, mlp_down: paths of the first and last MLP projection, with `{layer}`; None where
            there is no dense MLP (mixture of experts).
        slopes: effective ALiBi slope per head, as the family's own forward uses it; 0 without.
        bias_dtype: grid to which the family rounds slope·position before it scales it, if any.
        bias_factor: factor the family applies to the rounded slope·position.
        clip: limit to which the family clamps the projected Q, K and V, if any.
        max_length: longest window the model can read, tokens; None without a limit. Learned
            positions and tables of biases have an end; rotations and slopes have none.
        trained_length: longest window the configuration names, where that is no limit.
        mlp_axis: axis of the first MLP weight that neurons lie on; the other one in the last.
        mlp_up_start: index of the first neuron there, where a gate is stacked before it.
        observed: where queries and keys become those that attention compares: they leave the
            `projections` that way, or rotation and norms follow and the model hands them to
            `transformers`' attention `interface`.
        attending: whether each layer has attention; the others (convolutions, state spaces) have
            no heads. Empty if all do.
        windows: sliding window of each layer, tokens, this one included; None where all are seen.
            Empty if no layer has one.
        softcap: limit of the scores, if the family bends them with a tanh.
        learned_sinks: whether each head has a learned score that takes part in the softmax.
        joint_norm: whether a norm of Q and K spans all heads, so that changing one head rescales
            the others of its layer too.
        logit_factor: factor of the language-model head's output, before any cap.
        logit_softcap: limit of the logits, if the family bends them with a tanh.
        initializer_range: standard deviation of the weights when the model was made.
        rounds_scores: whether the family's own forward holds the bias and the sum of score and
            bias in the model's dtype, so that in 16 bit they are rounded.
        slow_gelu: path, with `{layer}`, of an MLP activation that is GELU in its tanh form, written
            out in many operations; None where one operation does it.
    """

    family: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    scale: float
    query: Projection
    key: Projection
    value: Projection
    output: Projection
    mlp_up: str | None
    mlp_down: str | None
    slopes: tuple[float, ...]
    bias_dtype: torch.dtype | None = None
    bias_factor: float = 1.0
    clip: float | None = None
    max_length: int | None = None
    trained_length: int | None = None
    mlp_axis: int = 0
    mlp_up_start: int = 0
    observed: Observed = "projections"
    attending: tuple[bool, ...] = ()
    windows: tuple[int | None, ...] = ()
    softcap: float | None = None
    learned_sinks: bool = False
    joint_norm: bool = False
    logit_factor: float = 1.0
    logit_softcap: float | None = None
    initializer_range: float = 0.02
    rounds_scores: bool = False
    slow_gelu: str | None = None

    def __post_init__(self) -> None:
        """Raises `UnsupportedModel` where the projections have other heads than are named."""
        for part in PARTS:
            many, what = (self.heads, "heads")
            if part in ("key", "value"):
                many, what = (self.kv_heads, "key/value heads")
            places = len(self.projection(part).starts)
            if places != many:
                raise UnsupportedModel(
                    f"{self.family}: {part} lies in {places} places, where the layout has {many} "
                    f"{what}; count them as the attention module does, whatever the configuration "
                    "calls them"
                )
        if self.heads % self.kv_heads:
            raise UnsupportedModel(
                f"{self.family}: {self.heads} heads cannot share {self.kv_heads} key/value heads "
                "evenly; expected a number of key/value heads that divides that of heads"
            )

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The layers that have heads, ascending."""
        attending = self.attending or (True,) * self.layers
        return tuple(layer for layer, attends in enumerate(attending) if attends)

    def block(self, layer: int) -> str:
        """Path of one layer: attention, MLP and norms."""
        stem, _, _ = self.output.module.partition("{layer}")
        return f"{stem}{layer}"

    def window(self, layer: int) -> int | None:
        """How many positions back, itself included, a token of that layer sees; None: all."""
        return self.windows[layer] if self.windows else None

    def projection(self, part: Part) -> Projection:
        """One of the four projections by name."""
        projections: Mapping[Part, Projection] = {
            "query": self.query,
            "key": self.key,
            "value": self.value,
            "output": self.output,
        }
        return projections[part]

    def kv_head(self, head: int) -> int:
        """The key/value head that a query head reads; neighbours share one."""
        return head * self.kv_heads // self.heads

    def sharing(self, head: int) -> tuple[int, ...]:
        """The query heads, this one included, that read the same key/value head."""
        return tuple(h for h in range(self.heads) if self.kv_head(h) == self.kv_head(head))

    def blocks(self, part: Part, layer: int, head: int) -> tuple[Block, ...]:
        """The weight block, and the bias block if there is one, of one part of a *query* head.

        For keys and values these are the blocks of the key/value head that it reads.
        """
        projection = self.projection(part)
        index = self.kv_head(head) if part in ("key", "value") else head
        start = projection.starts[index]
        path = projection.path(layer)
        weight = Block(f"{path}.weight", projection.axis, start, self.head_dim)
        if not projection.bias:
            return (weight,)
        return weight, Block(f"{path}.bias", 0, start, self.head_dim)

    def head_blocks(self, layer: int, head: int) -> dict[Part, tuple[Block, ...]]:
        """All blocks of one query head: Q, K and V (weight, bias) and the output columns."""
        return {part: self.blocks(part, layer, head) for part in PARTS}

    def key_bias(
        self, length: int, device: torch.device | None = None
    ) -> Float[Tensor, "head key"]:
        """What the family adds to the scaled scores for a key at position 0 … length − 1, fp32.

        ALiBi here is slope·position: softmax ignores what is constant along a row, so this equals
        −slope·distance. Without ALiBi it is zero.
        """
        positions = torch.arange(length, device=device, dtype=torch.float32)
        slopes = torch.tensor(self.slopes, device=device, dtype=torch.float32)
        if self.bias_dtype is None:
            return slopes[:, None] * positions
        raw = (slopes / self.bias_factor).to(self.bias_dtype)
        return (raw[:, None] * positions.to(self.bias_dtype)).float() * self.bias_factor
