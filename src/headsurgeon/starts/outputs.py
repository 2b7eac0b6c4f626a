"""What an operated head adds to the residual stream at step 0.

An output start runs after the initialisation of Q, K and V and may change any slice of the head.
"""

from collections.abc import Sequence
from math import sqrt

import torch

from headsurgeon.starts.head_tensors import HeadTensors, StartContext


def zero_output(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """The head adds exactly zero: its columns of the output projection are cleared.

    Source: arXiv:2603.09616.
    """
    for head in heads:
        head.weights["output"].zero_()


def keep_output(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """The columns of the output projection stay as they are."""


def random_output(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """A small random output: normal columns, deviation initializer_range / √(2·layers).

    So residual projections start in GPT-2 ("Language Models are Unsupervised Multitask Learners",
    section 2.3); with BLOOM-1b7's 0.02 and 24 layers it is 0.0029.
    """
    deviation = context.layout.initializer_range / sqrt(2.0 * context.layout.layers)
    for head in heads:
        drawn = torch.empty(head.weights["output"].shape)
        head.weights["output"].copy_(drawn.normal_(0.0, deviation, generator=context.noise))
