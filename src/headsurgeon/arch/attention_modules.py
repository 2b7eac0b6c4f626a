"""Whether the attention modules are as their family makes them from the configuration.

Some families are measured, and run faster, along a way that calls the four projections and nothing
else of an attention module. What its other parts do, and the numbers it holds, is then taken from
the layout; so a hook there, or a number changed after loading, has to be seen.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from headsurgeon.arch.identity import foreign_hooks
from headsurgeon.arch.layout import PARTS, Layout
from headsurgeon.errors import UnsupportedModel

_NUMBERS = (bool, int, float, str, type(None))


def check_attention_modules(model: PreTrainedModel, layout: Layout) -> None:
    """Refuses hooks and numbers in attention that the way past its forward would leave out.

    Dropout is no concern of measuring, which switches it off.

    Raises:
        UnsupportedModel: names the module and what is there.
    """
    if layout.observed == "interface":
        # the model's own attention runs, and what it hands over is what is measured
        return
    fresh: dict[str, Any] | None = None
    for layer in layout.attention_layers:
        path = layout.output.path(layer).rpartition(".")[0]
        module = model.get_submodule(path)
        projections = {layout.projection(part).path(layer) for part in PARTS}
        for name, inner in module.named_modules(prefix=path):
            hooks = foreign_hooks(inner)
            called = any(name == known or name.startswith(f"{known}.") for known in projections)
            if hooks and not called and inner is not module:
                raise UnsupportedModel(
                    f"a hook (from {', '.join(hooks.values())}) at {name}, inside of attention, "
                    "where the faster forward would not call it nor what is measured follow it; "
                    f"remove it, or put it on {path} or one of the projections in it"
                )
        if fresh is None:
            with torch.device("meta"):
                fresh = dict(_numbers(type(module)(model.config, layer_idx=layer)))
        for name, expected in fresh.items():
            value = vars(module).get(name, expected)
            if value != expected:
                raise UnsupportedModel(
                    f"{path}.{name} is {value!r}, where the configuration makes it {expected!r}; "
                    "it was changed after loading: change the configuration and load again, so "
                    "that all who read it agree"
                )


def _numbers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        own = name.startswith("_") or name in ("training", "layer_idx") or "dropout" in name
        if isinstance(value, _NUMBERS) and not own:
            yield name, value
