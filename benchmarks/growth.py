"""How cost grows as work grows: processor time on one core, and the exponent of each curve.

python benchmarks/growth.py

Processor time of one thread says what work costs whatever else the machine does. An exponent is the
slope of a straight line through the logarithms of all points of a curve.
"""

import argparse
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from flops import count
from machine import keep, use_all_cores
from memory import peak_beyond
from subject import bloom, tokens
from torch import Tensor
from transformers import BloomConfig, BloomForCausalLM

import headsurgeon as hs
from headsurgeon.heads import HeadId
from headsurgeon.models.token_loss import next_token_loss
from headsurgeon.planning import Plan, PlannedHead

# what a curve holds still while one of them varies
LAYERS, HEADS, LENGTH, WINDOWS, WIDTH = 4, 8, 512, 1, 64
CURVES: dict[str, tuple[int, ...]] = {
    "layers": (2, 4, 8, 16),
    "heads": (4, 8, 16, 32),
    "length": (256, 512, 1024, 2048, 4096),
    "windows": (1, 2, 4, 8),
    "sick heads": (1, 4, 16, 64),
}
# the windows of which memory and time per token are shown
LONG = (2048, 8192, 16384)


def model_of(layers: int, heads: int) -> BloomForCausalLM:
    """A BLOOM whose hidden size grows with its heads, of 64 features each."""
    config = BloomConfig(vocab_size=1024, hidden_size=WIDTH * heads, n_layer=layers, n_head=heads)
    return BloomForCausalLM(config).eval()


def measuring(**changed: int) -> Callable[[], Any]:
    """Measuring a model that differs in one thing from what curves hold still."""
    held = {"layers": LAYERS, "heads": HEADS, "length": LENGTH, "windows": WINDOWS, **changed}
    model = model_of(held["layers"], held["heads"])
    batch = tokens(held["length"], held["windows"])
    return lambda: hs.measure(model, batch, batch_size=1)


def training(sick: int) -> Callable[[], Any]:
    """Forward and backward of a training step with so many operated heads, lowest layers first."""
    model = model_of(8, HEADS)
    heads = tuple(PlannedHead(id=HeadId(*divmod(place, HEADS))) for place in range(sick))
    hs.operate(model, Plan(model="shape", rule="heads", heads=heads))
    batch = tokens(LENGTH)
    return lambda: _step(model, batch)


def _step(model: BloomForCausalLM, batch: Tensor) -> None:
    next_token_loss(model, batch).backward()


def curve(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of one core at every point, and the exponent."""
    runs = {
        point: training(point) if name == "sick heads" else measuring(**{name: point})
        for point in CURVES[name]
    }
    seconds: dict[int, list[float]] = {point: [] for point in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for point, run in runs.items():
            start = time.process_time()
            run()
            seconds[point].append(time.process_time() - start)
    medians = {point: statistics.median(values) for point, values in seconds.items()}
    logs = [(math.log(point), math.log(value)) for point, value in medians.items()]
    slope, _ = statistics.linear_regression(*zip(*logs, strict=True))
    (before, low), (last, high) = logs[-2:]
    return {
        "curve": name,
        "seconds": {str(point): value for point, value in medians.items()},
        "exponent": slope,
        "last_exponent": (high - low) / (last - before),
    }


def long_window(length: int) -> tuple[int, float, int]:
    """Measuring a window on two layers of BLOOM-560m's shape.

    Returns:
        Bytes above the weights, seconds of one core, floating-point operations counted.
    """
    model, batch = bloom(2, head=False), tokens(length)
    torch.set_num_threads(1)
    spent: list[float] = []

    def run() -> None:
        start = time.process_time()
        hs.measure(model, batch)
        spent.append(time.process_time() - start)

    above = peak_beyond(model, batch, run)["above"]
    return above, spent[0], count(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--one", type=int, metavar="LENGTH")
    parser.add_argument("--curves", nargs="*", default=list(CURVES))
    parser.add_argument("--long", nargs="*", type=int, default=list(LONG))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    use_all_cores()
    if options.one:
        print(*long_window(options.one))
        return
    torch.set_num_threads(1)
    for name in options.curves:
        keep("growth", curve(name, options.rounds), ("curve",))
    for length in options.long:
        command = [sys.executable, __file__, "--one", str(length)]
        ended = subprocess.run(command, check=True, capture_output=True, text=True)
        above, seconds, flop = ended.stdout.split()[-3:]
        row = {
            "length": length,
            "layers": 2,
            "above": int(above),
            "seconds": float(seconds),
            "flop": int(flop),
        }
        keep("long windows", row, ("length",))


if __name__ == "__main__":
    main()
