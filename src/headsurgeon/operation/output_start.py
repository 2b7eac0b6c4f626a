"""What an operated head adds to the residual stream at step 0: small functions by name.

To add one, write a function that changes the views it is given and enter it in `OUTPUT_STARTS`. It
runs after the initialisation of Q, K and V and may change any slice of the head.
"""

from collections.abc import Callable

from headsurgeon.operation.slice_maps import HeadTensors

OutputStart = Callable[[HeadTensors], None]


def zero_output(head: HeadTensors) -> None:
    """The head adds exactly zero: its columns of the output projection are cleared.

    Source: arXiv:2603.09616.
    """
    head.weights["output"].zero_()


def keep_output(head: HeadTensors) -> None:
    """The columns of the output projection stay as they are."""


OUTPUT_STARTS: dict[str, OutputStart] = {
    "zero-output": zero_output,
    "keep-output": keep_output,
}
