"""The layers below an ablated one compute what they always did: they are run once, then skipped."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from headsurgeon.arch import Layout
from headsurgeon.evaluation.block_forwards import replaced


class LowerLayers:
    """What the layers below one layer put out, batch by batch, for the same text again and again.

    One layer's output is held at a time: heads should be asked about in the order of their layers.
    The model's weights must stay what they are, and every pass must read the same batches: evaluate
    the whole model first, since the first evaluation of a model also looks at its own loss.
    """

    def __init__(self, model: nn.Module, layout: Layout) -> None:
        self._blocks = [model.get_submodule(layout.block(n)) for n in range(layout.layers)]
        self._layer = 0
        self._outputs: list[Any] = []

    @contextmanager
    def below(self, layer: int, rising: bool = True) -> Iterator[None]:
        """While open, forward passes begin at `layer` or below, wherever an earlier one ended.

        They note where a later one may begin: at `layer`, unless a lower one is known already and
        the layers asked about are not `rising`.
        """
        known = self._layer if self._layer <= layer else 0
        with ExitStack() as stack:
            if known:
                stack.enter_context(_skipping(self._blocks[:known], self._outputs))
            if layer == known or (known and not rising):
                yield
                return
            outputs = stack.enter_context(_noting(self._blocks[layer - 1]))
            yield
        # only now: an interrupted pass must not be taken for a whole one
        self._layer, self._outputs = layer, outputs


@contextmanager
def _noting(block: nn.Module) -> Iterator[list[Any]]:
    outputs: list[Any] = []
    handle = block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def _skipping(blocks: list[nn.Module], outputs: list[Any]) -> Iterator[None]:
    """Every block returns what the last of them did; so only that needs to be kept."""
    # the lowest block is the first to be called in each pass, and moves on to the next batch
    passes = iter(outputs)
    current: list[Any] = []

    def first(*inputs: Any, **named: Any) -> Any:
        current[:] = [next(passes)]
        return current[0]

    forwards: list[Callable[..., Any]] = [first]
    forwards += [lambda *inputs, **named: current[0]] * (len(blocks) - 1)
    with replaced(blocks, forwards):
        yield
