"""What an operated head adds to the residual stream at step 0: nothing, or what it did before.

An output start runs after the initialisation of Q, K and V and may change any slice of the head.
"""

from collections.abc import Sequence
from math import sqrt

import torch

from headsurgeon.errors import SettingsError
from headsurgeon.starts.head_tensors import HeadTensors, StartContext


def zero_output(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """The head adds exactly zero: its columns of the output projection are cleared.

    Source: arXiv:2603.09616.
    """
    for head in heads:
        head.weights["output"].zero_()


def keep_output(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """The columns of the output projection stay as they are."""


def carry(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """Columns cleared as in `zero_output`; what the head put out on average stays, as a bias.

    So the start costs what mean ablation costs. The bias of the layer's output projection is not
    trained, but it is part of the patch.
    """
    for head in heads:
        columns = head.weights["output"]
        constant = columns.float() @ context.seen.mean_context[head.id.layer, head.id.head]
        assert head.output_bias is not None
        head.output_bias.add_(constant)
        columns.zero_()


def carry_value(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """The same constant in the bias of the values: their weights are cleared, the columns stay.

    Raises:
        SettingsError: values have no bias, or heads share them.
    """
    for head in heads:
        alone = len(context.layout.sharing(head.id.head)) == 1
        if "value" not in head.biases or not alone:
            raise SettingsError(
                f"carry_value keeps a constant in the bias of each head's values, and "
                f"{context.layout.family} has none of its own; use zero_output"
            )
        head.weights["value"].zero_()
        head.biases["value"].copy_(context.seen.mean_context[head.id.layer, head.id.head])


def random_output(heads: Sequence[HeadTensors], context: StartContext) -> None:
    """A small random output: normal columns, deviation initializer_range / √(2·layers).

    So residual projections start in GPT-2 ("Language Models are Unsupervised Multitask Learners",
    section 2.3); with BLOOM-1b7's 0.02 and 24 layers it is 0.0029.
    """
    deviation = context.layout.initializer_range / sqrt(2.0 * context.layout.layers)
    for head in heads:
        drawn = torch.empty(head.weights["output"].shape)
        head.weights["output"].copy_(drawn.normal_(0.0, deviation, generator=context.noise))
