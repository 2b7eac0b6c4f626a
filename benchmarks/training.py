"""Training steps: ours against the paper's protocol, LoRA, full fine-tuning and checkpointing.

python benchmarks/training.py --case 512:24 --case 2048:8 --case 512:24:head
"""

import argparse
import gc
from functools import partial
from typing import Any

from arms import ARMS
from flops import count
from machine import busy_cores, keep, use_all_cores
from shares import product_rate, shares
from subject import HIDDEN, bloom, plan, tokens
from timing import alternate, medians, ratio

COMPARED = ("paper", "lora", "full", "ours-checkpointed")
CASES = ("512:24", "2048:8", "512:24:head")
# against the paper's protocol alone: a step of it takes up to half a minute, and others more
LONG_CASES = ("4096:4", "2048:8:head")


def case(
    length: int, layers: int, head: bool, names: list[str], rounds: int, busy: bool = False
) -> dict[str, Any]:
    """One shape: every arm on its own model, one window of `length` tokens a step."""
    wanted = plan(layers)
    batch = tokens(length)
    arms, operations, trainable = {}, {}, {}
    for name in ["ours", *names]:
        arm = ARMS[name](bloom(layers, head), wanted, head)
        arms[name] = partial(arm.step, batch)
        operations[name] = count(arms[name])
        trainable[name] = arm.trainable
    with busy_cores(busy):
        seconds = alternate(arms, rounds)
    # no step can be faster than its matrix products at the speed of a large one
    floor = operations["ours"] / product_rate(length, HIDDEN)
    against = {}
    for name in names:
        measured = ratio(seconds[name], seconds["ours"])
        predicted = operations[name] / operations["ours"]
        against[name] = {
            "speedup": measured,
            "predicted": predicted,
            "achieved": measured["median"] / predicted,
            "at_most": medians(seconds)[name] / floor,
        }
    return {
        "length": length,
        "layers": layers,
        "head": head,
        "busy": busy,
        "operated_layers": len({place.layer for place in wanted.operated}),
        "operated_heads": len(wanted.operated),
        "tflop": {name: value / 1e12 for name, value in operations.items()},
        "trainable": trainable,
        "seconds": medians(seconds),
        "floor_seconds": floor,
        "shares": shares(arms["ours"]),
        "gflop_per_second": {
            name: operations[name] / value / 1e9 for name, value in medians(seconds).items()
        },
        "against": against,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--case",
        action="append",
        metavar="LENGTH:LAYERS[:head]",
        help="shapes to run again; without this all of the published ones",
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), help="what to compare ours with")
    parser.add_argument("--busy", action="store_true", help="beside a process on every core")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    use_all_cores()
    for text in options.case or (*CASES, *LONG_CASES):
        length, layers, *head = text.split(":")
        arms = options.arms or (["paper"] if text in LONG_CASES else list(COMPARED))
        shape = int(length), int(layers), bool(head)
        keep(
            "training",
            case(*shape, arms, options.rounds, options.busy),
            ("length", "layers", "head", "busy"),
        )
        gc.collect()


if __name__ == "__main__":
    main()
