"""Training steps: ours against the paper's protocol, LoRA, full fine-tuning and checkpointing.

python benchmarks/training.py --case 512:24 --case 2048:8 --case 512:24:head
"""

import argparse
import gc
import json
from functools import partial
from typing import Any

from arms import ARMS
from flops import count
from machine import RESULTS, use_all_cores, write
from shares import product_rate, shares
from subject import HIDDEN, bloom, plan, tokens
from timing import alternate, medians, ratio

COMPARED = ("paper", "lora", "full", "ours-checkpointed")
CASES = ("512:24", "2048:8", "512:24:head")
# against the paper's protocol alone: a step of it takes up to half a minute, and others more
LONG_CASES = ("4096:4", "2048:8:head")


def case(length: int, layers: int, head: bool, names: list[str], rounds: int) -> dict[str, Any]:
    """One shape: every arm on its own model, one window of `length` tokens a step."""
    wanted = plan(layers)
    batch = tokens(length)
    arms, operations, trainable = {}, {}, {}
    for name in ["ours", *names]:
        arm = ARMS[name](bloom(layers, head), wanted, head)
        arms[name] = partial(arm.step, batch)
        operations[name] = count(arms[name])
        trainable[name] = arm.trainable
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
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    use_all_cores()
    rows = []
    for text in options.case or (*CASES, *LONG_CASES):
        length, layers, *head = text.split(":")
        arms = options.arms or (["paper"] if text in LONG_CASES else list(COMPARED))
        rows.append(case(int(length), int(layers), bool(head), arms, options.rounds))
        gc.collect()
    write("training", {"rows": [*_others(rows), *rows] if options.case else rows})


def _others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of an earlier run whose shapes have not been run again; no ratio spans two runs."""
    shapes = [(row["length"], row["head"]) for row in rows]
    earlier = json.loads((RESULTS / "training.json").read_text(encoding="utf-8"))["rows"]
    return [row for row in earlier if (row["length"], row["head"]) not in shapes]


if __name__ == "__main__":
    main()
