"""The model as it was before anything was trained, while a learner keeps its values aside."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from headsurgeon.operation.learner import Learner


@contextmanager
def untouched(learner: Learner) -> Iterator[None]:
    """While open, an open learner's model computes what it did before, bit for bit.

    Afterwards what is trained is what it was, bit for bit. Meanwhile it holds what the stock
    weights hold, so its precision must not be lower than theirs.
    """
    values, stock = learner.trainable(), learner.untouched_values()
    with torch.no_grad():
        kept = {name: value.detach().clone() for name, value in values.items()}
        for name, value in values.items():
            value.copy_(stock[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in values.items():
                value.copy_(kept[name])
