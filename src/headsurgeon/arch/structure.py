"""Whether a model has the layers and heads that its configuration, and so its layout, describes.

Heads that were cut out, layers that were dropped, doubled or shared leave a model that may still
run; what is read by index would then belong to another head, or to two.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from headsurgeon.arch.layout import PARTS, Layout
from headsurgeon.errors import UnsupportedModel


def check_structure(model: nn.Module, layout: Layout) -> None:
    """Refuses a model of other layers, or of heads of another number or width, than its layout.

    Raises:
        UnsupportedModel: names the layer, what was expected there, and what is there.
    """
    _check_layers(model, layout)
    ends = _ends(layout)
    seen: dict[int, int] = {}
    for layer in layout.attention_layers:
        for path, (axis, expected) in ends.items():
            name = path.format(layer=layer)
            module = _submodule(model, name)
            if seen.setdefault(id(module), layer) != layer:
                raise UnsupportedModel(
                    f"layers {seen[id(module)]} and {layer} are one and the same module ({name}); "
                    "expected layers of their own, since a head belongs to one layer"
                )
            for leaf, tensor in _plain(module):
                found = tensor.shape[axis if leaf == "weight" else 0]
                if (leaf == "weight" or axis == 0) and found != expected:
                    raise UnsupportedModel(
                        f"layer {layer} has other heads than the configuration says: "
                        f"{name}.{leaf} is {list(tensor.shape)}, where {layout.heads} heads of "
                        f"width {layout.head_dim} ({layout.kv_heads} with keys and values) make "
                        f"{expected} along axis {axis}; heads that were pruned cannot be told from "
                        "their neighbours: take the model from before (to switch heads off and "
                        "keep their places, set their output columns to zero)"
                    )


def _check_layers(model: nn.Module, layout: Layout) -> None:
    path = layout.block(0).rpartition(".")[0]
    # not children(), which names a module that stands twice once
    found = len(_submodule(model, path)._modules)
    if found != layout.layers:
        raise UnsupportedModel(
            f"{path} holds {found} layers and the configuration says {layout.layers}; where layers "
            "were cut or added, the configuration must say so, too: change it, save the model, and "
            "load it again"
        )


def _ends(layout: Layout) -> dict[str, tuple[int, int]]:
    """For each projection's path: the axis that heads lie on, and how far they reach along it."""
    ends: dict[str, tuple[int, int]] = {}
    for part in PARTS:
        projection = layout.projection(part)
        reach = max(projection.starts) + layout.head_dim
        _, before = ends.get(projection.module, (0, 0))
        ends[projection.module] = (projection.axis, max(reach, before))
    return ends


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise UnsupportedModel(
            f"the model has no module {path}, where the layout of its family expects one; it was "
            "changed after loading: load it again"
        ) from error


def _plain(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weight and bias where they hold one number per value: not packed, nor spread or elsewhere."""
    for leaf, tensor in module.named_parameters(recurse=False):
        axes = {"weight": 2, "bias": 1}.get(leaf)
        if tensor.ndim == axes and tensor.is_floating_point() and tensor.numel():
            yield leaf, tensor
