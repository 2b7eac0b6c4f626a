"""From heads to slices: which indices of which parameters an operation owns."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from headsurgeon.arch import Block, Layout
from headsurgeon.arch.layout import PARTS, Part
from headsurgeon.heads import HeadId
from headsurgeon.operation.slices import SliceMap, merge_runs
from headsurgeon.starts.head_tensors import HeadTensors


def owned_parts(layout: Layout, heads: Sequence[HeadId]) -> dict[HeadId, tuple[Part, ...]]:
    """What an operation on `heads` changes of each: always Q and output, K and V where it may.

    A key/value head belongs to a group of query heads; it is operated on only if every head of the
    group is, and then counts for the group's first head.
    """
    operated = set(heads)
    owned: dict[HeadId, tuple[Part, ...]] = {}
    for head in heads:
        group = layout.sharing(head.head)
        complete = all(HeadId(head.layer, other) in operated for other in group)
        first = head.head == group[0]
        owned[head] = PARTS if complete and first else ("query", "output")
    return owned


def frozen_key_values(layout: Layout, heads: Sequence[HeadId]) -> tuple[HeadId, ...]:
    """The heads whose keys and values stay frozen, since their group is not complete."""
    operated = set(heads)
    return tuple(
        head
        for head in heads
        if any(HeadId(head.layer, other) not in operated for other in layout.sharing(head.head))
    )


def output_biases(layout: Layout, heads: Sequence[HeadId]) -> dict[int, str]:
    """For each layer with one of `heads`, the name the bias of its output projection would have."""
    layers = sorted({head.layer for head in heads})
    return {layer: f"{layout.output.path(layer)}.bias" for layer in layers}


def slice_maps(
    layout: Layout, heads: Sequence[HeadId], output_bias: bool = False
) -> dict[str, SliceMap]:
    """The slice of every parameter that an operation on `heads` changes, by parameter name.

    With `output_bias` the whole bias of each layer's output projection is one too.
    """
    blocks: dict[str, list[Block]] = {}
    sides: dict[str, Part] = {}
    for head, parts in owned_parts(layout, heads).items():
        for part in parts:
            for block in layout.blocks(part, head.layer, head.head):
                blocks.setdefault(block.parameter, []).append(block)
                sides[block.parameter] = part
    if output_bias:
        for name in output_biases(layout, heads).values():
            blocks[name] = [Block(name, 0, 0, layout.hidden)]
            sides[name] = "output"
    return {
        name: SliceMap(
            parameter=name,
            axis=of_parameter[0].axis,
            side="in" if sides[name] == "output" else "out",
            runs=merge_runs((block.start, block.length) for block in of_parameter),
        )
        for name, of_parameter in sorted(blocks.items())
    }


def head_tensors(
    layout: Layout,
    heads: Sequence[HeadId],
    maps: Mapping[str, SliceMap],
    slices: Mapping[str, Tensor],
) -> list[HeadTensors]:
    """Views of each head's slices, heads in order."""
    return [
        _views(layout, head, parts, maps, slices)
        for head, parts in owned_parts(layout, heads).items()
    ]


def _views(
    layout: Layout,
    head: HeadId,
    parts: tuple[Part, ...],
    maps: Mapping[str, SliceMap],
    slices: Mapping[str, Tensor],
) -> HeadTensors:
    weights: dict[Part, Tensor] = {}
    biases: dict[Part, Tensor] = {}
    for part in parts:
        weight, *bias = layout.blocks(part, head.layer, head.head)
        weights[part] = _oriented(part, weight, _view(weight, maps, slices))
        for block in bias:
            biases[part] = _view(block, maps, slices)
    carried = output_biases(layout, [head])[head.layer]
    output_bias = slices[carried].detach() if carried in slices else None
    return HeadTensors(head, weights, biases, output_bias)


def head_copy(layout: Layout, head: HeadId, model: nn.Module) -> HeadTensors:
    """All four parts of one head as the model holds them, copied in fp32."""
    weights: dict[Part, Tensor] = {}
    biases: dict[Part, Tensor] = {}
    for part, (weight, *bias) in layout.head_blocks(*head).items():
        weights[part] = _oriented(part, weight, _copy(weight, model))
        for block in bias:
            biases[part] = _copy(block, model)
    return HeadTensors(head, weights, biases)


def _copy(block: Block, model: nn.Module) -> Tensor:
    held = block.of(model.get_parameter(block.parameter).detach())
    return held.to(torch.float32, copy=True)


def _oriented(part: Part, block: Block, values: Tensor) -> Tensor:
    """A block of weights as it would lie in `nn.Linear`."""
    return values.t() if block.axis == (0 if part == "output" else 1) else values


def _view(block: Block, maps: Mapping[str, SliceMap], slices: Mapping[str, Tensor]) -> Tensor:
    offset = maps[block.parameter].offset(block.start)
    return slices[block.parameter].detach().narrow(block.axis, offset, block.length)


def not_finite(
    values: Mapping[str, Tensor],
    maps: Mapping[str, SliceMap],
    heads: Sequence[HeadId],
    layout: Layout,
) -> str | None:
    """Says which tensor and which head hold NaN or infinity; None where all values are finite."""
    for name, value in values.items():
        if bool(torch.isfinite(value).all()):
            continue
        axis, index = maps[name].axis, maps[name].index()
        rest = [other for other in range(value.ndim) if other != axis]
        finite = torch.isfinite(value).all(dim=rest) if rest else torch.isfinite(value)
        bad = set(index[(~finite).cpu()].tolist())
        named = [
            str(head)
            for head in heads
            for blocks in layout.head_blocks(head.layer, head.head).values()
            for block in blocks
            if block.parameter == name
            and not bad.isdisjoint(range(block.start, block.start + block.length))
        ]
        return f"{name} ({', '.join(dict.fromkeys(named))}) holds NaN or infinity"
    return None
