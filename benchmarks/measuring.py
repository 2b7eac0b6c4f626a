"""Measuring heads: ours against `output_attentions=True`, and against a plain forward pass.

python benchmarks/measuring.py --lengths 512 2048 4096 --layers 4
python benchmarks/measuring.py --parts forward busy --lengths 2048 --layers 3
"""

import argparse
import gc
import math
from collections.abc import Callable
from typing import Any

import torch
from flops import count
from machine import busy_cores, keep, use_all_cores
from shares import product_rate, shares
from subject import HEADS, HIDDEN, bloom, tokens
from timing import alternate, medians, ratio
from torch import Tensor
from transformers import PreTrainedModel

import headsurgeon as hs
from headsurgeon.arch import layout_of
from headsurgeon.attention import fast_attention
from headsurgeon.attention.tiled_attention import tiled_attention
from headsurgeon.attention.tiled_statistics import tiled_statistics


def with_maps(model: PreTrainedModel, batch: Tensor, head: bool) -> list[tuple[Tensor, Tensor]]:
    """As a user would write it: mass on position 0 and entropy of every head, from the maps."""
    run = model if head else model.base_model
    found = run(batch, output_attentions=True, use_cache=False).attentions
    return [mass_and_entropy(maps) for maps in found]


def attention_with_maps(
    query: Tensor, key: Tensor, value: Tensor, alibi: Tensor, mask: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """What `transformers`' BLOOM does between its projections, and the statistics from the map."""
    batch, heads, rows, width = query.shape
    scores = alibi.baddbmm(
        batch1=query.reshape(batch * heads, rows, width),
        batch2=key.reshape(batch * heads, rows, width).transpose(-1, -2),
        beta=1.0,
        alpha=1.0 / math.sqrt(width),
    )
    scores = scores.view(batch, heads, rows, -1) + mask
    maps = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    joined = maps.view(batch * heads, rows, -1)
    context = torch.bmm(joined, value.reshape(batch * heads, rows, width))
    return context, mass_and_entropy(maps)


def whole(layers: int, length: int, head: bool, rounds: int, busy: bool = False) -> dict[str, Any]:
    """Whole forward passes; if `busy`, beside a process on every core that takes its share."""
    model = bloom(layers, head)
    batch = tokens(length)

    def plain() -> None:
        with fast_attention(model):
            model.base_model(batch, use_cache=False)

    arms: dict[str, Callable[[], Any]] = {
        "ours": lambda: hs.measure(model, batch),
        "maps": lambda: with_maps(model, batch, head),
    }
    if not head:
        arms["plain"] = plain
    with torch.no_grad(), busy_cores(busy):
        seconds = alternate(arms, rounds)
    part = "forward with head" if head else "forward without head"
    row = {
        "part": f"{part}, busy cores" if busy else part,
        "length": length,
        "layers": layers,
        "maps_over_ours": ratio(seconds["maps"], seconds["ours"]),
        "seconds": medians(seconds),
    }
    if not busy:
        row |= _limits(arms["ours"], seconds, length)
    if not head:
        row["ours_over_plain"] = ratio(seconds["ours"], seconds["plain"])
    return row


def attention(_: int, length: int, rounds: int) -> dict[str, Any]:
    """One layer's attention between its projections, statistics included."""
    width = HIDDEN // HEADS
    query, key, value = (torch.randn(1, HEADS, length, width) for _ in range(3))
    bias = layout_of(bloom(1, head=False)).key_bias(length)
    scale = width**-0.5
    alibi = bias[:, None]
    lowest = torch.finfo(torch.float32).min
    mask = torch.full((length, length), lowest).triu(1)[None, None]
    arms = {
        "ours": lambda: tiled_statistics(query, key, bias, scale, value),
        "maps": lambda: attention_with_maps(query, key, value, alibi, mask),
        "plain": lambda: tiled_attention(query, key, value, bias, scale),
    }
    with torch.no_grad():
        seconds = alternate(arms, rounds)
    return {
        "part": "attention",
        "length": length,
        "layers": 1,
        "maps_over_ours": ratio(seconds["maps"], seconds["ours"]),
        "ours_over_plain": ratio(seconds["ours"], seconds["plain"]),
        "seconds": medians(seconds),
        **_limits(arms["ours"], seconds, length),
    }


def _limits(
    ours: Callable[[], Any], seconds: dict[str, list[float]], length: int
) -> dict[str, Any]:
    """How much faster than maps our products alone would be, and where our time goes."""
    with torch.no_grad():
        floor = count(ours) / product_rate(length, HIDDEN)
        return {
            "floor_seconds": floor,
            "at_most": medians(seconds)["maps"] / floor,
            "shares": shares(ours),
        }


def mass_and_entropy(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The two statistics that a user would take first, of maps [batch, head, row, key]."""
    mass = maps[..., 0].mean((0, 2))
    entropy = torch.special.entr(maps).sum(-1).mean((0, 2))
    return mass, entropy


PARTS: dict[str, Callable[[int, int, int], dict[str, Any]]] = {
    "attention": attention,
    "forward": lambda layers, length, rounds: whole(layers, length, False, rounds),
    "head": lambda layers, length, rounds: whole(layers, length, True, max(2, rounds // 2)),
    "busy": lambda layers, length, rounds: whole(layers, length, False, rounds, busy=True),
}
MARKS = ("part", "length")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    use_all_cores()
    for length in options.lengths:
        for part in options.parts:
            # the logits of 4,096 tokens would take 4 GB, and say nothing about attention
            if part == "head" and length > 2048:
                continue
            keep("measuring", PARTS[part](options.layers, length, options.rounds), MARKS)
            gc.collect()


if __name__ == "__main__":
    main()
